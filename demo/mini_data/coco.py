"""Miniature COCO 2017: ``train2017/``, ``val2017/`` and ``annotations/instances_{train,val}2017.json``."""

import json
from pathlib import Path
from typing import Any

from PIL import Image

from demo.mini_data.categories import COCO_CATEGORIES, COCO_SHAPES
from demo.mini_data.options import SPLITS, Options, Progress
from demo.mini_data.polygons import mask_to_box, mask_to_polygons
from demo.mini_data.scene import JPEG_QUALITY, Scene, SceneStyle, render_scene

_STYLE = SceneStyle(groups=tuple(COCO_SHAPES.values()), counts=(1, 4), extents=(0.22, 0.6))
_CATEGORY = {shape: category for category, shapes in COCO_SHAPES.items() for shape in shapes}
# Ids are unique over both splits, as in COCO.
_FIRST_IMAGE_ID = {'train': 1, 'val': 100_001}
_FIRST_ANNOTATION_ID = {'train': 1, 'val': 10_000_001}


def annotate(scene: Scene, image_id: int, first_id: int) -> list[dict[str, Any]]:
    """COCO annotations of a scene's objects.

    Args:
        scene (Scene): Rendered scene.
        image_id (int): Id of its picture.
        first_id (int): Id of the first annotation.

    Returns:
        list[dict]: One entry per object; polygons, box (x, y, width, height) and area in pixels fit its visible
        mask exactly.
    """
    return [
        dict(
            id=first_id + i,
            image_id=image_id,
            category_id=_CATEGORY[item.name],
            segmentation=mask_to_polygons(item.mask),
            bbox=mask_to_box(item.mask),
            area=float(item.mask.sum()),
            iscrowd=0,
        )
        for i, item in enumerate(scene.objects)
    ]


def _categories() -> list[dict[str, Any]]:
    return [
        dict(supercategory=group, id=number, name=name)
        for group, members in COCO_CATEGORIES.items()
        for number, name in members.items()
    ]


def _write_split(root: Path, options: Options, split: str, progress: Progress) -> None:
    folder = root / f'{split}2017'
    folder.mkdir()
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for index in progress(options.count(split), f'coco/{folder.name}'):
        scene = render_scene(options.rng(split, index), options.image_size, _STYLE)
        image_id = _FIRST_IMAGE_ID[split] + index
        name = f'{image_id:012d}.jpg'
        Image.fromarray(scene.image).save(folder / name, quality=JPEG_QUALITY)
        images.append(dict(license=1, file_name=name, height=options.image_size, width=options.image_size, id=image_id))
        annotations += annotate(scene, image_id, _FIRST_ANNOTATION_ID[split] + len(annotations))
    content = dict(
        info=dict(
            description='Miniature COCO: rendered scenes in the layout of COCO 2017',
            version='1.0',
            year=2026,
            contributor='mmevm',
            url='',
        ),
        licenses=[dict(id=1, name='Rendered, no third-party content', url='')],
        images=images,
        annotations=annotations,
        categories=_categories(),
    )
    path = root / 'annotations' / f'instances_{split}2017.json'
    path.write_text(json.dumps(content), encoding='utf-8')


def write_coco(root: Path, options: Options, progress: Progress) -> None:
    """Render both splits of miniature COCO.

    Args:
        root (Path): Empty folder, which becomes the ``data_root``.
        options (Options): Seed, picture size and counts.
        progress (Progress): Shows how far the rendering is.
    """
    (root / 'annotations').mkdir()
    for split in SPLITS:
        _write_split(root, options, split, progress)
