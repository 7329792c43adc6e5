"""`demo.mini_data.scene`: masks are disjoint, mostly visible, and where the objects are."""

import numpy as np
import pytest

from demo.mini_data.backgrounds import STUFF, render_background
from demo.mini_data.scene import MIN_VISIBLE, SceneStyle, render_scene
from demo.mini_data.shapes import SHAPES

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
        # A ball is squeezed to 0.96 at most; what lies outside the picture is not in the mask.
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
