"""`mmevm.visualization.erf`: panels, squares and colours of maps made by hand."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from mmevm.visualization.erf import draw_field, draw_receptive_fields


def _spot(size: int, radius: int) -> np.ndarray:
    """Ones in a square in the middle, zeros around it."""
    scores = np.zeros((size, size))
    middle = slice(size // 2 - radius, size // 2 + radius + 1)
    scores[middle, middle] = 1
    return scores


def _pixels(path: str) -> np.ndarray:
    return np.array(Image.open(path).convert('RGB')).astype(int)


def test_draw_receptive_fields_leaves_room_for_absent_weights(tmp_path: Path) -> None:
    fields = {'a': (_spot(51, 5), _spot(51, 15)), 'b': (_spot(51, 5), None)}
    black = _pixels(draw_receptive_fields(fields, tmp_path / 'erf.png')).max(axis=-1) < 30
    # The colour bar, black at its end, is cut off.
    quarters = [
        part
        for half in np.array_split(black[:, : int(0.85 * black.shape[1])], 2, axis=0)
        for part in np.array_split(half, 2, axis=1)
    ]
    parts = [float(quarter.mean()) for quarter in quarters]
    assert parts[0] > parts[2] > 0.2 and parts[1] > 0.2 and parts[3] < 0.05


def test_draw_field_is_logarithmic_down_to_a_ten_thousandth() -> None:
    scores = 7 * np.array([[1, 0.1, 0.01], [1e-3, 1e-4, 1e-5], [0, 0, 0]])
    image = draw_field(Figure().subplots(), scores)
    np.testing.assert_allclose(image.norm(image.get_array()), [[1, 0.75, 0.5], [0.25, 0, 0], [0, 0, 0]], atol=1e-12)


@pytest.mark.parametrize(
    'size, expected',
    [
        (7, [(1.5, 3), (0.5, 5)]),  # around pixel 3, from 2 to 4 and from 1 to 5
        (4, [(0.5, 3), (-0.5, 4)]),  # around pixel 2, from 1 to 3; and the whole
    ],
)
def test_draw_field_outlines_the_squares(size: int, expected: list[tuple[float, int]]) -> None:
    scores = np.zeros((size, size))
    scores[size // 2 - 1, size // 2], scores[size // 2, size // 2 - 2] = 6, 4
    axes = Figure().subplots()
    draw_field(axes, scores)
    half, most = axes.patches
    assert [(patch.get_x(), patch.get_width()) for patch in (half, most)] == expected
    assert all(patch.get_x() == patch.get_y() and patch.get_width() == patch.get_height() for patch in axes.patches)
    shares = [round(100 * side / size) for _, side in expected]
    assert axes.get_xlabel() == f'half in {shares[0]} %, 99 % in {shares[1]} %'


def test_draw_receptive_fields_refuses_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match='must hold at least one model'):
        draw_receptive_fields({}, tmp_path / 'erf.png')
