"""The renderer: exact coverage and outlines, patches within their frames, and disjoint, mostly visible masks."""

import numpy as np
import pytest

from demo.mini_data.backgrounds import STUFF, box, render_background
from demo.mini_data.raster import coverage, draw_shape
from demo.mini_data.scene import MIN_VISIBLE, SceneStyle, mask_to_box, mask_to_polygons, outlines, render_scene
from demo.mini_data.shapes import SHAPES, arc


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
        areas = sorted(int(abs(_area(piece.ravel().tolist()))) for piece in pieces)
        assert not holes
        assert areas[-1] >= 0.75 * sum(areas)
        assert max(patch.mask.shape) <= 2.9 * half_extent + 6


_STYLE = SceneStyle(groups=[[name] for name in SHAPES], counts=(3, 6), extents=(0.2, 0.6))


@pytest.mark.parametrize('seed', range(4))
def test_render_scene_gives_disjoint_nonempty_masks(seed: int) -> None:
    scene = render_scene(np.random.default_rng(seed), 128, _STYLE)
    masks = np.stack([item.mask for item in scene.objects])
    assert scene.image.shape == (128, 128, 3) and scene.image.dtype == np.uint8
    assert masks.sum(axis=0).max() == 1
    assert masks.sum(axis=(1, 2)).min() > 20
    assert scene.stuff.max() < len(STUFF)


def test_render_scene_with_one_disc_has_the_visible_area() -> None:
    style = SceneStyle(groups=[['soccer ball']], counts=(1, 1), extents=(0.5, 0.5))
    for seed in range(5):
        [item] = render_scene(np.random.default_rng(seed), 128, style).objects
        # A ball is squeezed to 0.96 at most; what lies outside the image is not in the mask.
        assert MIN_VISIBLE * 0.95 * np.pi * 32**2 < item.mask.sum() < 1.02 * np.pi * 32**2


def test_render_scene_paints_the_object_where_its_mask_is() -> None:
    style = SceneStyle(groups=[['stop sign']], counts=(1, 1), extents=(0.6, 0.6))
    scene = render_scene(np.random.default_rng(1), 128, style)
    red, green, _ = scene.image[scene.objects[0].mask].astype(float).mean(axis=0)
    outside = scene.image[~scene.objects[0].mask].astype(float).mean(axis=0)
    assert red - green > 60 > outside[0] - outside[1]


def test_render_background_labels_several_surfaces() -> None:
    seen = set()
    for seed in range(12):
        stuff = render_background(np.random.default_rng(seed), 96).stuff
        assert len(np.unique(stuff)) >= 3
        seen |= {STUFF[i] for i in np.unique(stuff)}
    assert seen >= {'other', 'sky', 'building', 'tree', 'grass', 'road', 'wall', 'floor'}
