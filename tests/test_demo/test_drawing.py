"""`demo.mini_data.drawing`: coverage is exact on whole pixels, and patches keep to their frame."""

import numpy as np
import pytest

from demo.mini_data.backgrounds import box
from demo.mini_data.drawing import coverage, draw_shape
from demo.mini_data.polygons import outlines
from demo.mini_data.shapes import SHAPES, arc


def test_coverage_of_whole_pixels_is_one_and_cut_at_the_picture() -> None:
    window, alpha = coverage([box(3.0, 2.0, 12.0, 5.0)], 8)
    assert window == (slice(2, 5), slice(3, 8))
    np.testing.assert_array_equal(alpha, np.ones((3, 5), dtype=np.float32))


def test_coverage_sums_to_the_area_of_a_disc() -> None:
    _, alpha = coverage([arc(20.0, center=(32.3, 31.8))], 64)
    assert alpha.sum() == pytest.approx(np.pi * 400, rel=0.02)


def test_coverage_outside_the_picture_is_empty() -> None:
    _, alpha = coverage([box(-9.0, 2.0, -3.0, 5.0)], 8)
    assert alpha.size == 0


@pytest.mark.parametrize('name', SHAPES)
@pytest.mark.parametrize('half_extent', [10.0, 45.0])
def test_draw_shape_is_mostly_one_piece_without_holes(name: str, half_extent: float) -> None:
    for seed in range(3):
        patch = draw_shape(SHAPES[name], np.random.default_rng(seed), (50.2, 49.7), half_extent, -1.0)
        pieces, holes = outlines(patch.mask)
        areas = sorted(int(np.abs(_shoelace(piece))) for piece in pieces)
        assert not holes
        assert areas[-1] >= 0.75 * sum(areas)
        assert max(patch.mask.shape) <= 2.9 * half_extent + 6


def _shoelace(loop: np.ndarray) -> float:
    x, y = loop[:, 0], loop[:, 1]
    return float(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y)) / 2
