"""`tools/analysis/scan_order.py`: tables by hand, the papers' orders as loops, what the layers do, and the figure."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageColor
from torch import Tensor, nn

from mmevm.layers import ES2D, SS2D, BidirectionalMamba
from tools.analysis.scan_order import SCANS, centres, draw_scan_order, main, positions, reach

# The positions of a 4 x 4 map's tokens on each route, dots for those that it skips.
POSITIONS = {
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
def test_positions_on_a_map_of_four_by_four(name: str) -> None:
    expected = [[-1 if part == '.' else int(part) for part in line.split()] for line in POSITIONS[name]]
    assert [positions(one).tolist() for one in reach(SCANS[name], 4, 4)] == expected


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


_ORANGE = ImageColor.getrgb('#f5b041')


def test_centres_put_the_class_token_between_its_neighbours() -> None:
    # Behind the last patch of the second of four rows, and between the first two of the second of three.
    assert centres(SCANS['Vim'], 4, 4)[7:10].tolist() == [[3, 1], [1.5, 1.5], [0, 2]]
    assert centres(SCANS['Vim'], 3, 3)[3:6].tolist() == [[0, 1], [0.5, 1], [1, 1]]
    assert centres(SCANS['SS2D'], 2, 3).tolist() == [[0, 0], [1, 0], [2, 0], [0, 1], [1, 1], [2, 1]]


def _orange(path: str, columns: int) -> list[int]:
    """Pixels in the colour of what is seen, by panel."""
    pixels = np.array(Image.open(path).convert('RGB')).astype(int)
    seen = np.abs(pixels - _ORANGE).max(axis=-1) < 3
    # The legend, which has the colour too, lies in the lowest part, and the scan's name at the left.
    panels = seen[: int(0.8 * seen.shape[0]), int(0.06 * seen.shape[1]) :]
    return [int(part.sum()) for part in np.array_split(panels, columns, axis=1)]


def test_draw_scan_order_colours_what_the_first_token_sees(tmp_path: Path) -> None:
    path = draw_scan_order({'SS2D': SCANS['SS2D']}, tmp_path / 'order.png', (4, 4), (0, 0))
    row, column, row_back, column_back, _ = _orange(path, 5)
    # Itself alone, forward; all sixteen, backward.
    assert row == pytest.approx(column, rel=0.2) and row_back == pytest.approx(column_back, rel=0.2)
    assert 12 < row_back / row < 24


def test_draw_scan_order_colours_one_phase_of_es2d(tmp_path: Path) -> None:
    path = draw_scan_order({'ES2D': SCANS['ES2D']}, tmp_path / 'order.png', (4, 4), (2, 3))
    counts = _orange(path, 5)
    # Row 2 and column 3 are of phase (0, 1), the third route.
    assert counts[2] > 0 and counts[0] == counts[1] == counts[3] == 0


@pytest.mark.parametrize(
    'size, query, message',
    [
        ((1, 1), (0, 0), 'at least two cells, got 1 x 1'),
        ((0, 4), (0, 0), 'at least two cells, got 0 x 4'),
        ((3, 4), (3, 0), r'must be in the map of 3 x 4 cells, got \(3, 0\)'),
        ((3, 4), (0, -1), r'must be in the map of 3 x 4 cells, got \(0, -1\)'),
    ],
)
def test_draw_scan_order_refuses(size: tuple, query: tuple, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        draw_scan_order(SCANS, tmp_path / 'order.png', size, query)
    assert not list(tmp_path.iterdir())


def test_command_prints_what_the_token_sees(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out = tmp_path / 'order.png'
    assert main(['--map', '4', '4', '--token', '2', '3', '--out', str(out)]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    # ES2D: the last of its phase's four. SS2D: places 11 and 14, and as many from the end. Vim: the class token too.
    assert lines[1:4] == [
        'ES2D 4 of 16 tokens; through each route: 0, 0, 4, 0'.split(),
        'SS2D 16 of 16 tokens; through each route: 12, 15, 5, 2'.split(),
        'Vim 17 of 17 tokens; through each route: 13, 5'.split(),
    ]
    assert lines[4] == [str(out)] and Image.open(out).width == 1600


@pytest.mark.parametrize(
    'arguments, message',
    [
        (['--map', '4', '25'], 'must be at most 24 x 24'),
        (['--map', '4', '4', '--token', '4', '0'], 'must be in the map of 4 x 4 cells'),
        (['--out', 'no/such/folder/x.png'], 'no/such/folder/x.png cannot be drawn'),
    ],
)
def test_command_names_what_does_not_fit(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    assert message in capsys.readouterr().err
