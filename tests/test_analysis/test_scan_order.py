"""`mmevm.analysis.scan_order`: tables by hand, loops that know the papers' orders, and what the layers really do."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mmevm.analysis.scan_order import SCANS, places, reach
from mmevm.layers import ES2D, SS2D, BidirectionalMamba

# The 4 x 4 map's tokens by their places in each route, dots for those that it passes by.
PLACES = {
    'ES2D': [
        '0 . 1 .   . . . .   2 . 3 .   . . . .',
        '. . . .   0 . 2 .   . . . .   1 . 3 .',
        '. 0 . 1   . . . .   . 2 . 3   . . . .',
        '. . . .   . 0 . 2   . . . .   . 1 . 3',
    ],
    'SS2D': [
        '0 1 2 3   4 5 6 7   8 9 10 11   12 13 14 15',
        '0 4 8 12   1 5 9 13   2 6 10 14   3 7 11 15',
        '15 14 13 12   11 10 9 8   7 6 5 4   3 2 1 0',
        '15 11 7 3   14 10 6 2   13 9 5 1   12 8 4 0',
    ],
    # The ninth of 17 is the class token.
    'Vim': [
        '0 1 2 3   4 5 6 7   8   9 10 11 12   13 14 15 16',
        '16 15 14 13   12 11 10 9   8   7 6 5 4   3 2 1 0',
    ],
}


@pytest.mark.parametrize('name', SCANS)
def test_places_on_a_map_of_four_by_four(name: str) -> None:
    expected = [[-1 if part == '.' else int(part) for part in line.split()] for line in PLACES[name]]
    assert [places(one).tolist() for one in reach(SCANS[name], 4, 4)] == expected


def _walks(name: str, height: int, width: int) -> list[list[int]]:
    """Each route's tokens in the order of its visits."""
    if name == 'Vim':
        tokens = list(range(height * width + 1))
        return [tokens, tokens[::-1]]
    if name == 'SS2D':
        rows = [r * width + c for r in range(height) for c in range(width)]
        columns = [r * width + c for c in range(width) for r in range(height)]
        return [rows, columns, rows[::-1], columns[::-1]]
    even_rows, odd_rows = range(0, height, 2), range(1, height, 2)
    return [
        [r * width + c for r in even_rows for c in range(0, width, 2)],
        [r * width + c for c in range(0, width, 2) for r in odd_rows],
        [r * width + c for r in even_rows for c in range(1, width, 2)],
        [r * width + c for c in range(1, width, 2) for r in odd_rows],
    ]


@pytest.mark.parametrize('size', [(4, 4), (5, 3), (2, 5), (1, 3)], ids=str)
@pytest.mark.parametrize('name', SCANS)
def test_reach_goes_from_every_token_to_itself_and_those_after_it(name: str, size: tuple[int, int]) -> None:
    reached = reach(SCANS[name], *size)
    for walk, got in zip(_walks(name, *size), reached, strict=True):
        expected = np.zeros_like(got)
        for place, token in enumerate(walk):
            expected[token, walk[: place + 1]] = True
        np.testing.assert_array_equal(got, expected)


def _perturbed(function: Callable[[Tensor], Tensor], shape: tuple[int, int, int]) -> np.ndarray:
    """Which tokens' outputs change with which tokens' inputs. Args: shape of a map (H, W, D). Returns: bool [T, T]."""
    H, W, D = shape
    x = torch.randn(1, H, W, D, dtype=torch.float64)
    before, columns = function(x), []
    for token in range(H * W):
        y = x.clone()
        y.view(H * W, D)[token] += 1
        columns.append((function(y) != before).flatten(1, 2).any(dim=-1)[0].numpy())
    return np.stack(columns, axis=1)


def _scatter(layer: nn.Module) -> nn.Module:
    """Random weights, so that nothing is too small to be seen."""
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.5)
    return layer.double().requires_grad_(False)


@pytest.mark.parametrize('size', [(4, 4), (5, 3)], ids=str)
@pytest.mark.parametrize('name, layer', [('ES2D', ES2D), ('SS2D', SS2D)])
def test_reach_is_the_layers_own(name: str, layer: type[nn.Module], size: tuple[int, int]) -> None:
    mixer = _scatter(layer(8, d_state=2))
    np.testing.assert_array_equal(reach(SCANS[name], *size).any(axis=0), _perturbed(mixer.scan, (*size, 16)))


@pytest.mark.parametrize('backward', [False, True], ids=['forward', 'backward'])
def test_reach_of_vim_is_the_layers_own(backward: bool) -> None:
    mixer = _scatter(BidirectionalMamba(8, d_state=2))
    suffix = '_b' if backward else ''
    parts = [getattr(mixer, f'{part}{suffix}') for part in ('conv1d', 'x_proj', 'dt_proj')]
    parts += [mixer.A_b_log, mixer.D_b] if backward else [mixer.A_log, mixer.D]
    changed = _perturbed(lambda x: mixer.scan(x, *parts, reverse=backward), (1, 4 * 3 + 1, 16))
    np.testing.assert_array_equal(reach(SCANS['Vim'], 4, 3)[int(backward)], changed)


@pytest.mark.parametrize('row, col, token', [(0, 0, 0), (1, 0, 3), (1, 1, 5), (2, 2, 9)])
def test_token_counts_the_class_token_in_the_middle(row: int, col: int, token: int) -> None:
    # Nine patches; the class token is the fifth of ten.
    assert SCANS['Vim'].token(3, 3, row, col) == token
    assert SCANS['SS2D'].token(3, 3, row, col) == 3 * row + col


def test_reach_refuses_an_empty_map() -> None:
    with pytest.raises(ValueError, match='at least one row and one column, got 0 x 3'):
        reach(SCANS['SS2D'], 0, 3)
