"""A dataset as files that OpenMMLab's libraries read: COCO files, lists of images, label maps of class ids."""

import hashlib
import json
import os
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from PIL import Image
from pycocotools import mask as runs

from mmevm.data.masks import class_ids, read_mask
from mmevm.data.records import Sample, Split, Thing, UserData
from mmevm.files import replacing


def _write(folder: Path, name: str, suffix: str, content: str) -> str:
    """Write a file whose name has the hash of its content, so that no run changes the files of another."""
    digest = hashlib.sha256(content.encode()).hexdigest()[:8]
    path = folder / f'{name}-{digest}{suffix}'
    if not path.exists():
        with replacing(path) as draft:
            draft.write_text(content, encoding='utf-8')
    return str(path)


def _inside(root: Path, path: str) -> str:
    """Return a path below the root as relative to it; others stay."""
    relative = os.path.relpath(path, root)
    return path if relative.startswith('..') else relative


def write_coco(data: UserData, split: Split, name: str, folder: Path) -> dict[str, Any]:
    """Return the settings of MMDetection's dataset for a split; a COCO file is written unless the user's own serves.

    Args:
        data (UserData): The dataset.
        split (Split): One of its splits.
        name (str): The name of the split.
        folder (Path): Where to write.

    Returns:
        dict: ``data_root``, ``ann_file`` and ``data_prefix``.
    """
    if split.annotations:
        prefix = _inside(data.root, split.prefix)
        file = _inside(data.root, split.annotations)
        return dict(data_root=str(data.root), ann_file=file, data_prefix=dict(img='' if prefix == '.' else prefix))
    content = coco_content(data, split)
    file = _write(folder, name, '.json', json.dumps(content))
    return dict(data_root=str(data.root), ann_file=file, data_prefix=dict(img=''))


def coco_content(data: UserData, split: Split) -> dict[str, Any]:
    """Return what a COCO file says of a split; names of images are relative to the dataset's folder."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    numbers = [sample.number for sample in split.samples]
    keeps_ids = None not in numbers and len(set(numbers)) == len(numbers)
    for index, sample in enumerate(split.samples, 1):
        number = sample.number if keeps_ids else index
        width, height = sample.size or sample.stated or (0, 0)
        images.append(dict(id=number, file_name=_inside(data.root, sample.path), width=width, height=height))
        for thing in sample.things:
            annotations.append(_annotation(thing, len(annotations) + 1, number, width, height))
    categories = [dict(id=index, name=name) for index, name in enumerate(data.classes, 1)]
    return dict(images=images, annotations=annotations, categories=categories)


def _annotation(thing: Thing, number: int, image: int | None, width: int, height: int) -> dict[str, Any]:
    x, y, w, h = thing.box
    left, top = max(x, 0), max(y, 0)
    right, bottom = min(x + w, width or x + w), min(y + h, height or y + h)
    box = [round(value, 3) for value in (left, top, right - left, bottom - top)]
    entry = dict(
        id=number,
        image_id=image,
        category_id=thing.category + 1,
        bbox=box,
        area=_area(thing) or box[2] * box[3],
        iscrowd=int(thing.crowd),
    )
    return entry | (dict(segmentation=thing.shape) if thing.shape else {})


def _area(thing: Thing) -> float:
    """Return the area of a shape, by which COCO's metric tells small objects from large ones; 0 without a shape."""
    if isinstance(thing.shape, list):
        return sum(map(_polygon_area, thing.shape))
    counts = (thing.shape or {}).get('counts')
    return float(sum(counts[1::2])) if isinstance(counts, list) else float(runs.area(thing.shape)) if counts else 0.0


def _polygon_area(polygon: list[float]) -> float:
    x, y = polygon[::2], polygon[1::2]
    return abs(sum(x[i - 1] * y[i] - x[i] * y[i - 1] for i in range(len(x)))) / 2


def write_list(data: UserData, split: Split, name: str, folder: Path) -> dict[str, Any]:
    """Write a list of images and class ids; return the settings of MMPretrain's dataset for it."""
    names = [_inside(data.root, sample.path) for sample in split.samples]
    # MMPretrain strips lines.
    names = [name if name == name.lstrip() else f'.{os.sep}{name}' for name in names]
    lines = [f'{name} {sample.label}\n' for name, sample in zip(names, split.samples, strict=True)]
    file = _write(folder, name, '.txt', ''.join(lines))
    return dict(data_root=str(data.root), ann_file=file, data_prefix='')


def write_label_maps(data: UserData, split: Split, name: str, folder: Path, as_is: bool) -> list[dict[str, Any]]:
    """Write lists of images, and label maps unless the user's own serve; return settings of MMSegmentation's datasets.

    Args:
        data (UserData): The dataset.
        split (Split): One of its splits.
        name (str): The name of the split.
        folder (Path): Where to write.
        as_is (bool): Whether the label maps are class ids already.

    Returns:
        list[dict]: One for each pair of suffixes that the images and label maps have.
    """
    converted = None if as_is else _convert(data, split, folder)
    groups: dict[tuple[str, str, str, str], list[str]] = defaultdict(list)
    for sample in split.samples:
        image_stem, image_suffix = os.path.splitext(sample.path)
        mask = _converted(data, sample, converted) if converted else str(sample.mask)
        image_folder, mask_folder, stem = _common(image_stem, mask)
        groups[image_folder, mask_folder, image_suffix, mask[len(mask_folder) + 1 + len(stem) :]].append(stem)
    settings = []
    for (images, masks, image_suffix, mask_suffix), stems in sorted(groups.items()):
        file = _write(folder, name, '.txt', ''.join(f'{stem}\n' for stem in stems))
        prefixes = dict(img_path=_inside(data.root, images), seg_map_path=_inside(data.root, masks))
        suffixes = dict(img_suffix=image_suffix, seg_map_suffix=mask_suffix)
        settings.append(dict(data_root=str(data.root), ann_file=file, data_prefix=prefixes, **suffixes))
    return settings


def _common(image_stem: str, mask: str) -> tuple[str, str, str]:
    """Return the folders of an image and its label map, and the name that both begin with."""
    images, masks, name = os.path.dirname(image_stem), os.path.dirname(mask), os.path.basename(image_stem)
    while os.path.basename(images) == os.path.basename(masks) and images != masks:
        name = os.path.join(os.path.basename(images), name)
        images, masks = os.path.dirname(images), os.path.dirname(masks)
    return images, masks, name


def share_names(split: Split) -> bool:
    """Return whether every label map is called as its image, perhaps with an ending."""
    pairs = ((os.path.basename(str(sample.mask)), os.path.basename(sample.path)) for sample in split.samples)
    return all(mask.startswith(os.path.splitext(image)[0]) for mask, image in pairs)


def _converted(data: UserData, sample: Sample, folder: Path) -> str:
    stem = os.path.splitext(_inside(data.root, sample.path).lstrip(os.sep))[0]
    return str(folder / f'{stem}.png')


def _digest(data: UserData, split: Split) -> str:
    """Return a hash that changes with the classes of the values and with any of the label maps."""
    found = [(sample.mask, os.stat(str(sample.mask))) for sample in split.samples]
    sources = [(mask, stat.st_size, stat.st_mtime_ns) for mask, stat in found]
    text = repr((str(data.root), data.colours, sorted(data.values.items()), sources))
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _convert(data: UserData, split: Split, folder: Path) -> Path:
    """Convert the label maps that are not converted yet; return their folder."""
    target = folder / f'masks-{_digest(data, split)}'

    def convert(sample: Sample) -> None:
        path = Path(_converted(data, sample, target))
        if path.exists():
            return
        with replacing(path) as draft:
            Image.fromarray(class_ids(read_mask(str(sample.mask), data.colours), data.values)).save(draft, format='PNG')

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(convert, split.samples))
    return target
