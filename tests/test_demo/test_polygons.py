"""`demo.mini_data.polygons`: masks become polygons and boxes without loss."""

import numpy as np
import pytest

from demo.mini_data.polygons import mask_to_box, mask_to_polygons, outlines


def _area(polygon: list[float]) -> float:
    x, y = polygon[0::2], polygon[1::2]
    return sum(x[i - 1] * y[i] - x[i] * y[i - 1] for i in range(len(x))) / 2


def test_mask_to_polygons_runs_along_the_pixels_edges() -> None:
    mask = np.zeros((5, 6), dtype=bool)
    mask[1:3, 2:5] = True
    [polygon] = mask_to_polygons(mask)
    corners = set(zip(polygon[0::2], polygon[1::2], strict=True))
    assert corners == {(2.0, 1.0), (5.0, 1.0), (5.0, 3.0), (2.0, 3.0)}


def test_mask_to_polygons_keeps_pixels_apart_that_touch_at_a_corner() -> None:
    polygons = mask_to_polygons(np.eye(3, dtype=bool))
    assert sorted(_area(polygon) for polygon in polygons) == [1.0, 1.0, 1.0]
    assert all(len(polygon) == 8 for polygon in polygons)


@pytest.mark.parametrize('seed', range(5))
def test_outlines_enclose_exactly_the_masks_area(seed: int) -> None:
    mask = np.random.default_rng(seed).random((17, 23)) < 0.6
    pieces, holes = outlines(mask)
    assert sum(_area(loop.ravel().tolist()) for loop in pieces + holes) == mask.sum()
    assert all(_area(loop.ravel().tolist()) < 0 for loop in holes)


def test_mask_to_polygons_names_a_hole() -> None:
    mask = np.ones((5, 5), dtype=bool)
    mask[2, 3] = False
    with pytest.raises(ValueError, match=r'no holes, got 1, the first at \(x, y\) = \([34], [23]\)'):
        mask_to_polygons(mask)


def test_mask_to_box_is_tight() -> None:
    mask = np.zeros((8, 9), dtype=bool)
    mask[2, 3] = mask[6, 7] = True
    assert mask_to_box(mask) == [3.0, 2.0, 5.0, 5.0]
    with pytest.raises(ValueError, match='at least one pixel'):
        mask_to_box(np.zeros((4, 4), dtype=bool))
