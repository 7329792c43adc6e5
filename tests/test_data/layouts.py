"""Miniature datasets in the layouts that users have: rectangles on noise, with exact boxes, polygons and masks."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

CLASSES = ('cat', 'dog', 'owl')
SIZE = (64, 48)
"""Width and height."""

Box = tuple[int, int, int, int, int]
"""Class, x, y, width and height."""


def boxes(index: int) -> list[Box]:
    """The objects of an image: one of each of two classes."""
    first = index % 3
    return [(first, 4, 6, 20, 16), ((first + 1) % 3, 30, 20, 24, 20)]


def paint(path: Path, index: int, bands: int = 3) -> Path:
    """Write the image of a number."""
    pixels = np.random.default_rng(index).integers(0, 80, (SIZE[1], SIZE[0], bands), dtype=np.uint8)
    for category, x, y, w, h in boxes(index):
        pixels[y : y + h, x : x + w, category] = 220
    path.parent.mkdir(parents=True, exist_ok=True)
    if bands == 3:
        Image.fromarray(pixels).save(path)
    else:
        from tifffile import imwrite

        imwrite(path, pixels)
    return path


def polygon(box: Box) -> list[int]:
    """The corners of a box."""
    _, x, y, w, h = box
    return [x, y, x + w, y, x + w, y + h, x, y + h]


def coco(names: Sequence[str], first: int = 0, polygons: bool = True, ids: Sequence[int] = (1, 2, 3)) -> dict[str, Any]:
    """The content of a COCO file for some images."""
    images, annotations = [], []
    for offset, name in enumerate(names):
        images.append(dict(id=first + offset, file_name=name, width=SIZE[0], height=SIZE[1]))
        for box in boxes(first + offset):
            item = dict(id=len(annotations) + 1, image_id=first + offset, category_id=ids[box[0]], iscrowd=0)
            item |= dict(bbox=list(box[1:]), area=box[3] * box[4])
            annotations.append(item | (dict(segmentation=[polygon(box)]) if polygons else {}))
    categories = [dict(id=number, name=name) for number, name in zip(ids, CLASSES, strict=True)]
    return dict(images=images, annotations=annotations, categories=categories)


def write_json(path: Path, content: Any) -> Path:
    """Write JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def write_coco(root: Path, counts: dict[str, int], polygons: bool = True) -> Path:
    """COCO's own layout: ``annotations/instances_train2017.json`` and ``train2017``."""
    first = 0
    for split, count in counts.items():
        names = [f'{index:04d}.jpg' for index in range(first, first + count)]
        for index, name in enumerate(names, first):
            paint(root / split / name, index)
        write_json(root / f'annotations/instances_{split}.json', coco(names, first, polygons))
        first += count
    return root


def write_roboflow(root: Path, counts: dict[str, int]) -> Path:
    """Roboflow's COCO export: ``train/_annotations.coco.json`` beside the images, with a group as category 0."""
    first = 0
    for split, count in counts.items():
        names = [f'{index:04d}_jpg.rf.0a.jpg' for index in range(first, first + count)]
        for index, name in enumerate(names, first):
            paint(root / split / name, index)
        content = coco(names, first)
        content['categories'] = [dict(id=0, name='animals', supercategory='none')] + [
            dict(category, supercategory='animals') for category in content['categories']
        ]
        write_json(root / split / '_annotations.coco.json', content)
        first += count
    return root


def yolo_line(box: Box, polygons: bool = False) -> str:
    """A line of a label file."""
    category, x, y, w, h = box
    width, height = SIZE
    values = [(x + w / 2) / width, (y + h / 2) / height, w / width, h / height]
    if polygons:
        values = [value / (width, height)[place % 2] for place, value in enumerate(polygon(box))]
    return f'{category} ' + ' '.join(f'{value:.6f}' for value in values)


def write_yolo(root: Path, counts: dict[str, int], polygons: bool = False, yaml: str | None = None) -> Path:
    """Ultralytics' layout: ``images/train``, ``labels/train`` and ``data.yaml``."""
    first = 0
    for split, count in counts.items():
        for index in range(first, first + count):
            paint(root / f'images/{split}/{index:04d}.jpg', index)
            label = root / f'labels/{split}/{index:04d}.txt'
            label.parent.mkdir(parents=True, exist_ok=True)
            label.write_text('\n'.join(yolo_line(box, polygons) for box in boxes(index)))
        first += count
    lines = ['path: .', *(f'{split}: images/{split}' for split in counts), 'names:']
    lines += [f'  {index}: {name}' for index, name in enumerate(CLASSES)]
    (root / 'data.yaml').write_text(yaml or '\n'.join(lines))
    return root


def voc_xml(index: int, name: str, size: tuple[int, int] = SIZE) -> str:
    """An annotation file of Pascal VOC, which counts pixels from 1."""
    objects = ''.join(
        f'<object><name>{CLASSES[c]}</name><difficult>0</difficult><bndbox><xmin>{x + 1}</xmin><ymin>{y + 1}</ymin>'
        f'<xmax>{x + w}</xmax><ymax>{y + h}</ymax></bndbox></object>'
        for c, x, y, w, h in boxes(index)
    )
    sizes = f'<size><width>{size[0]}</width><height>{size[1]}</height><depth>3</depth></size>'
    return f'<annotation><filename>{name}</filename>{sizes}{objects}</annotation>'


def write_voc(root: Path, counts: dict[str, int]) -> Path:
    """Pascal VOC's layout; without counts of splits other than ``''`` there are no lists."""
    first = 0
    (root / 'Annotations').mkdir(parents=True, exist_ok=True)
    for split, count in counts.items():
        names = [f'{index:04d}' for index in range(first, first + count)]
        for index, name in enumerate(names, first):
            paint(root / f'JPEGImages/{name}.jpg', index)
            (root / f'Annotations/{name}.xml').write_text(voc_xml(index, f'{name}.jpg'))
        if split:
            (root / 'ImageSets/Main').mkdir(parents=True, exist_ok=True)
            (root / f'ImageSets/Main/{split}.txt').write_text('\n'.join(names))
        first += count
    return root


def write_folders(root: Path, counts: dict[str, int]) -> Path:
    """A folder for each class, below one for each split but ``''``; the counts are of each class."""
    for split, count in counts.items():
        for number, name in enumerate(CLASSES):
            for index in range(count):
                paint(root / split / name / f'{split}{index:03d}.png', 3 * index + number)
    return root


def label_map(index: int, values: Sequence[int] = (0, 1, 2)) -> np.ndarray:
    """The classes of an image's pixels; those of the background are the first one's."""
    labels = np.full((SIZE[1], SIZE[0]), values[0], np.uint8)
    for category, x, y, w, h in boxes(index):
        labels[y : y + h, x : x + w] = values[category % len(values)]
    return labels


def write_masks(
    root: Path, counts: dict[str, int], values: Sequence[int] = (0, 1, 2), masks: str = 'masks', ending: str = ''
) -> Path:
    """Images and label maps: ``images/train`` and ``masks/train``."""
    first = 0
    for split, count in counts.items():
        for index in range(first, first + count):
            paint(root / 'images' / split / f'{index:04d}.jpg', index)
            path = root / masks / split / f'{index:04d}{ending}.png'
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(label_map(index, values)).save(path)
        first += count
    return root


def write_masks_by_split(root: Path, counts: dict[str, int]) -> Path:
    """Images and label maps below the splits: ``train/images`` and ``train/masks``."""
    write_masks(root, counts)
    for split in counts:
        for kind in ('images', 'masks'):
            (root / split).mkdir(exist_ok=True)
            (root / kind / split).rename(root / split / kind)
    return root
