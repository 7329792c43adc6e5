"""`mmevm.visualization.scan_order`: where tokens stand, and which cells of the figure have which colour."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageColor

from mmevm.analysis.scan_order import SCANS
from mmevm.visualization.scan_order import centres, draw_scan_order

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
        ((3, 4), (3, 0), r'must lie in the map of 3 x 4 cells, got \(3, 0\)'),
        ((3, 4), (0, -1), r'must lie in the map of 3 x 4 cells, got \(0, -1\)'),
    ],
)
def test_draw_scan_order_refuses(size: tuple, query: tuple, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        draw_scan_order(SCANS, tmp_path / 'order.png', size, query)
    assert not list(tmp_path.iterdir())
