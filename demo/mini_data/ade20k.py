"""Miniature ADE20K: ``ADEChallengeData2016/{images,annotations}/{training,validation}``."""

from pathlib import Path

import numpy as np
from PIL import Image

from demo.mini_data.backgrounds import STUFF
from demo.mini_data.categories import ADE20K_SHAPES, ADE20K_STUFF
from demo.mini_data.options import SPLITS, Options, Progress
from demo.mini_data.scene import JPEG_QUALITY, Scene, SceneStyle, render_scene

_STYLE = SceneStyle(groups=tuple(ADE20K_SHAPES.values()), counts=(1, 5), extents=(0.15, 0.55))
_LABEL = {shape: label for label, shapes in ADE20K_SHAPES.items() for shape in shapes}
_STUFF_LABELS = np.array([ADE20K_STUFF[name] for name in STUFF], dtype=np.uint8)
_FOLDERS = {'train': 'training', 'val': 'validation'}


def label_map(scene: Scene) -> np.ndarray:
    """ADE20K labels of a scene.

    Args:
        scene (Scene): Rendered scene.

    Returns:
        ndarray[size, size]: uint8; 0 for unlabelled clutter, 1 to 150 for ADE20K's classes.
    """
    labels = _STUFF_LABELS[scene.stuff]
    for item in scene.objects:
        labels[item.mask] = _LABEL[item.name]
    return labels


def write_ade20k(root: Path, options: Options, progress: Progress) -> None:
    """Render both splits of miniature ADE20K.

    Args:
        root (Path): Empty folder; the ``data_root`` is ``ADEChallengeData2016`` inside it.
        options (Options): Seed, picture size and counts.
        progress (Progress): Shows how far the rendering is.
    """
    for split in SPLITS:
        images, annotations = (
            root / 'ADEChallengeData2016' / kind / _FOLDERS[split] for kind in ('images', 'annotations')
        )
        images.mkdir(parents=True)
        annotations.mkdir(parents=True)
        for index in progress(options.count(split), f'ade/{_FOLDERS[split]}'):
            scene = render_scene(options.rng(split, index), options.image_size, _STYLE)
            name = f'ADE_{split}_{index + 1:08d}'
            Image.fromarray(scene.image).save(images / f'{name}.jpg', quality=JPEG_QUALITY)
            Image.fromarray(label_map(scene)).save(annotations / f'{name}.png')
