"""Miniature COCO, ADE20K and ImageNet in the layouts that mmdet, mmseg and mmpretrain read, and scikit-learn's digits.

{train,val}2017/, annotations/instances_{train,val}2017.json                COCO 2017
ADEChallengeData2016/{images,annotations}/{training,validation}/            ADE20K
{train,val}/<wnid>/*.JPEG, meta/{train,val}.txt                             ImageNet-1k
"""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from demo.mini_data.backgrounds import STUFF
from demo.mini_data.scene import Scene, SceneStyle, mask_to_box, mask_to_polygons, render_scene

SUBSETS = ('coco', 'ade20k', 'imagenet')
"""What can be rendered, in the order of the random streams."""

Progress = Callable[[int, str], Iterable[int]]
"""Takes a number of images and a title; yields 0, 1, … and may show the progress."""

_SPLITS = ('train', 'val')
_MIN_SIZE, _MAX_SIZE = 64, 4096
# File names and ids allow this many.
_MAX_IMAGES = 99_999
_JPEG_QUALITY = 92


@dataclass(frozen=True)
class Options:
    """Options of one dataset; equal options give equal bytes.

    Attributes:
        subset (str): One of :data:`SUBSETS`.
        seed (int): Not negative.
        image_size (int): Edge of the square images in pixels, 64 to 4096.
        train_images (int): Images in the training split, 1 to 99999.
        val_images (int): Images in the validation split, 1 to 99999.

    Raises:
        ValueError: If an option is out of its range.
    """

    subset: str
    seed: int
    image_size: int
    train_images: int
    val_images: int

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise ValueError(f'`seed` must be 0 or larger, got {self.seed}')
        if not _MIN_SIZE <= self.image_size <= _MAX_SIZE:
            raise ValueError(
                f'`image_size` must be {_MIN_SIZE} to {_MAX_SIZE} pixels, so that the objects can be '
                f'told apart, got {self.image_size}'
            )
        for split in _SPLITS:
            if not 1 <= self.count(split) <= _MAX_IMAGES:
                raise ValueError(
                    f'`{split}_images` must be 1 to {_MAX_IMAGES}, got {self.count(split)}; both splits are needed'
                )

    def count(self, split: str) -> int:
        """Return the number of images in a split."""
        return {'train': self.train_images, 'val': self.val_images}[split]

    def render(self, split: str, index: int, style: SceneStyle) -> Scene:
        """Render one scene; no other shares its random numbers, and more images do not change them."""
        seed = [self.seed, SUBSETS.index(self.subset), _SPLITS.index(split), index]
        return render_scene(np.random.default_rng(seed), self.image_size, style)


def _save(image: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path, quality=_JPEG_QUALITY)


# COCO 2017's 80 categories by supercategory; their ids run to 90 with gaps.
_COCO_NAMES = {
    'person': 'person',
    'vehicle': 'bicycle, car, motorcycle, airplane, bus, train, truck, boat',
    'outdoor': 'traffic light, fire hydrant, stop sign, parking meter, bench',
    'animal': 'bird, cat, dog, horse, sheep, cow, elephant, bear, zebra, giraffe',
    'accessory': 'backpack, umbrella, handbag, tie, suitcase',
    'sports': 'frisbee, skis, snowboard, sports ball, kite, baseball bat, baseball glove, skateboard, surfboard, '
    'tennis racket',
    'kitchen': 'bottle, wine glass, cup, fork, knife, spoon, bowl',
    'food': 'banana, apple, sandwich, orange, broccoli, carrot, hot dog, pizza, donut, cake',
    'furniture': 'chair, couch, potted plant, bed, dining table, toilet',
    'electronic': 'tv, laptop, mouse, remote, keyboard, cell phone',
    'appliance': 'microwave, oven, toaster, sink, refrigerator',
    'indoor': 'book, clock, vase, scissors, teddy bear, hair drier, toothbrush',
}
_COCO_IDS = [number for number in range(1, 91) if number not in (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)]
COCO_CATEGORIES = [
    dict(supercategory=group, id=number, name=name)
    for number, (group, name) in zip(
        _COCO_IDS, [(group, name) for group, names in _COCO_NAMES.items() for name in names.split(', ')], strict=True
    )
]
"""COCO's categories as its annotation files list them."""

_BALLS = ('soccer ball', 'basketball', 'tennis ball')
COCO_SHAPES: dict[int, tuple[str, ...]] = {
    10: ('traffic light',),
    13: ('stop sign',),
    28: ('umbrella',),
    37: _BALLS,
    38: ('kite',),
    85: ('clock',),
}
"""Shapes by COCO's category ids."""

_COCO_ID_OF = {shape: category for category, shapes in COCO_SHAPES.items() for shape in shapes}
_COCO_STYLE = SceneStyle(groups=tuple(COCO_SHAPES.values()), counts=(1, 4), extents=(0.22, 0.6))
# Ids are unique over both splits, as in COCO.
_FIRST_IMAGE_ID = {'train': 1, 'val': 100_001}
_FIRST_ANNOTATION_ID = {'train': 1, 'val': 10_000_001}


def annotate(scene: Scene, image_id: int, first_id: int) -> list[dict[str, Any]]:
    """Return COCO annotations of a scene's objects.

    Args:
        scene (Scene): Rendered scene.
        image_id (int): Id of its image.
        first_id (int): Id of the first annotation.

    Returns:
        list[dict]: One entry per object; polygons, box (x, y, width, height) and area in pixels fit its visible
        mask exactly.
    """
    return [
        dict(
            id=first_id + i,
            image_id=image_id,
            category_id=_COCO_ID_OF[item.name],
            segmentation=mask_to_polygons(item.mask),
            bbox=mask_to_box(item.mask),
            area=float(item.mask.sum()),
            iscrowd=0,
        )
        for i, item in enumerate(scene.objects)
    ]


def write_coco(root: Path, options: Options, progress: Progress) -> None:
    """Render miniature COCO into an empty folder, its ``data_root``."""
    (root / 'annotations').mkdir()
    for split in _SPLITS:
        size, images, annotations = options.image_size, [], []
        for index in progress(options.count(split), f'coco/{split}2017'):
            scene = options.render(split, index, _COCO_STYLE)
            image_id = _FIRST_IMAGE_ID[split] + index
            name = f'{image_id:012d}.jpg'
            _save(scene.image, root / f'{split}2017' / name)
            images.append(dict(license=1, file_name=name, height=size, width=size, id=image_id))
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
            categories=COCO_CATEGORIES,
        )
        (root / f'annotations/instances_{split}2017.json').write_text(json.dumps(content), encoding='utf-8')


ADE20K_SHAPES: dict[int, tuple[str, ...]] = {
    44: ('stop sign',),  # signboard
    120: _BALLS,
    136: ('vase',),
    137: ('traffic light',),
    149: ('clock',),
}
"""Shapes by ADE20K's labels (1 to 150; 0 is unlabelled)."""

ADE20K_STUFF = {
    'other': 0,
    'wall': 1,
    'building': 2,
    'sky': 3,
    'floor': 4,
    'tree': 5,
    'road': 7,
    'windowpane': 9,
    'grass': 10,
    'mountain': 17,
    'painting': 23,
}
"""ADE20K's labels by background surface."""

_ADE20K_LABEL_OF = {shape: label for label, shapes in ADE20K_SHAPES.items() for shape in shapes}
_ADE20K_STYLE = SceneStyle(groups=tuple(ADE20K_SHAPES.values()), counts=(1, 5), extents=(0.15, 0.55))


def label_map(scene: Scene) -> np.ndarray:
    """Return the ADE20K labels of a scene, uint8 [size, size]; 0 for unlabelled clutter."""
    labels = np.array([ADE20K_STUFF[name] for name in STUFF], dtype=np.uint8)[scene.stuff]
    for item in scene.objects:
        labels[item.mask] = _ADE20K_LABEL_OF[item.name]
    return labels


def write_ade20k(root: Path, options: Options, progress: Progress) -> None:
    """Render miniature ADE20K into an empty folder; its ``data_root`` is ``ADEChallengeData2016`` in it."""
    root = root / 'ADEChallengeData2016'
    for split, folder in (('train', 'training'), ('val', 'validation')):
        for index in progress(options.count(split), f'ade/{folder}'):
            scene = options.render(split, index, _ADE20K_STYLE)
            name = f'ADE_{split}_{index + 1:08d}'
            _save(scene.image, root / f'images/{folder}/{name}.jpg')
            _save(label_map(scene), root / f'annotations/{folder}/{name}.png')


IMAGENET_SHAPES = {
    'basketball': (430, 'n02802426'),
    'soccer ball': (805, 'n04254680'),
    'tennis ball': (852, 'n04409515'),
    'umbrella': (879, 'n04507155'),
    'vase': (883, 'n04522168'),
    'clock': (892, 'n04548280'),
    'stop sign': (919, 'n06794110'),
    'traffic light': (920, 'n06874185'),
}
"""ImageNet-1k's class index and WordNet id by shape; a stop sign is one of its street signs."""


def write_imagenet(root: Path, options: Options, progress: Progress) -> None:
    """Render miniature ImageNet into an empty folder, its ``data_root``; the classes take turns.

    Without the meta files mmpretrain numbers the folders it finds and wants 1000 of them; with them, each image keeps
    its class's true index among the 1000.
    """
    (root / 'meta').mkdir()
    shapes = sorted(IMAGENET_SHAPES)
    for split in _SPLITS:
        lines = []
        for index in progress(options.count(split), f'imagenet/{split}'):
            shape = shapes[index % len(shapes)]
            label, wnid = IMAGENET_SHAPES[shape]
            scene = options.render(split, index, SceneStyle(groups=((shape,),), counts=(1, 1), extents=(0.4, 0.85)))
            name = f'{wnid}_{index + 1}.JPEG' if split == 'train' else f'ILSVRC2012_val_{index + 1:08d}.JPEG'
            _save(scene.image, root / split / wnid / name)
            lines.append(f'{wnid}/{name} {label}')
        (root / f'meta/{split}.txt').write_text('\n'.join(sorted(lines)) + '\n', encoding='utf-8')


TRAIN_DIGITS = 1297
"""Digits for training; the other 500 are for validation. They come in the order of their writers, so that most of the
writers of the validation are not in the training."""


def write_digits(root: Path, size: int) -> None:
    """Write scikit-learn's 1797 handwritten digits, enlarged to ``size``, as ``{train,val}/<digit>/<number>.png``."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    for index, (pixels, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        folder = root / ('train' if index < TRAIN_DIGITS else 'val') / str(label)
        folder.mkdir(parents=True, exist_ok=True)
        image = Image.fromarray((pixels * (255 / 16)).round().astype(np.uint8))  # from 16, which is white
        image.resize((size, size), Image.Resampling.BICUBIC).convert('RGB').save(folder / f'{index:04d}.png')
