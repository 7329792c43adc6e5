"""Datasets for semantic segmentation: images, and label maps of the same names."""

import csv
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from mmevm.data.images import measure
from mmevm.data.records import (
    Findings,
    Sample,
    Split,
    UserData,
    files,
    images_below,
    is_image,
    is_split_folder,
    split_of,
    subfolders,
)
from mmevm.errors import UsageError

IGNORED = 255
"""The value of pixels without a class, in the label maps that are trained on."""

_IMAGES = ('images', 'image', 'imgs', 'img', 'jpegimages', 'img_dir')
_MASKS = (
    'masks', 'mask', 'labels', 'label', 'annotations', 'annotation', 'ann_dir', 'segmentationclass', 'segmentation',
    'segmentations', 'gt', 'seg', 'seg_maps', 'labelmaps',
)  # fmt: skip
_MASK_SUFFIXES = ('.png', '.bmp', '.tif', '.tiff', '.gif')
_MASK_ENDING = re.compile(r'[_-](masks?|labels?|labelids|labeltrainids|seg|segmentation|gt|l)$', re.IGNORECASE)
_CLASS_FILES = ('classes.txt', 'classes.json', 'class_dict.csv', 'labels.txt', 'names.txt', 'label_map.json')
_BACKGROUND = re.compile(r'(_+)?(background|bg|void|unlabell?ed|none|other|ignore)(_+)?', re.IGNORECASE)
_MAX_VALUES = 256


def read(path: Path) -> UserData | None:
    """Read a folder of images and label maps; ``None`` for a folder of another layout."""
    if path.is_file():
        return None
    pairs = dict(_folder_pairs(path))
    if not pairs:
        return None
    findings = Findings()
    splits = {split: Split(_pair(*found, findings)) for split, found in pairs.items()}
    splits = _listed(path, splits)
    data = UserData('segmentation', 'images and label maps', path, [], splits, findings)
    measure(data.samples())
    _read_values(data)
    _name_classes(data)
    return data


def is_mask(path: str) -> bool:
    """Return whether a file may be a label map: one in a format without loss."""
    return path.lower().endswith(_MASK_SUFFIXES)


def _named(folder: Path, names: tuple[str, ...], accept: Callable[[str], bool] = is_image) -> Path | None:
    """Return the subfolder of one of these names that has such files."""
    found = [inner for name in names for inner in subfolders(folder) if inner.name.casefold() == name]
    return next((inner for inner in found if any(map(accept, images_below(inner)))), None)


def _folder_pairs(root: Path) -> Iterator[tuple[str, tuple[Path, Path]]]:
    """Yield split, folder of images and folder of label maps."""
    images, masks = _named(root, _IMAGES), _named(root, _MASKS, is_mask)
    if images and masks:
        inner = {split_of(folder.name): folder for folder in subfolders(masks) if is_split_folder(folder.name)}
        parts = [folder for folder in subfolders(images) if is_split_folder(folder.name)]
        matched = [(folder, inner[split_of(folder.name)]) for folder in parts if split_of(folder.name) in inner]
        if matched:
            yield from ((split_of(folder.name) or '', (folder, other)) for folder, other in matched)
        else:
            yield '', (images, masks)
        return
    for folder in subfolders(root):
        if not is_split_folder(folder.name):
            continue
        split, images, masks = split_of(folder.name) or '', _named(folder, _IMAGES), _named(folder, _MASKS, is_mask)
        endings = [f'{folder.name}{mark}{name}' for name in _MASKS + ('annot',) for mark in ('', '_', '-')]
        beside = _named(root, tuple(ending.casefold() for ending in endings), is_mask)
        if images and masks:
            yield split, (images, masks)
        elif beside:
            yield split, (folder, beside)


def _pair(images: Path, masks: Path, findings: Findings) -> list[Sample]:
    """Match images and label maps by their names, without suffix and endings such as ``_mask``."""
    by_name: dict[str, str] = {}
    for mask in filter(is_mask, images_below(masks)):
        name = os.path.splitext(os.path.relpath(mask, masks))[0]
        by_name[name] = mask
        by_name.setdefault(_MASK_ENDING.sub('', name), mask)
    samples, without = [], []
    for image in images_below(images):
        name = os.path.splitext(os.path.relpath(image, images))[0]
        found = by_name.get(name) or by_name.get(_MASK_ENDING.sub('', name))
        if found:
            samples.append(Sample(image, mask=found))
        else:
            without.append(image)
    if without:
        findings.problem(f'Images without a label map in {masks}:', *without)
    used = {str(sample.mask) for sample in samples}
    if unused := sorted(set(by_name.values()) - used):
        findings.note(f'Label maps without an image in {images}, left out:', *unused)
    return samples


def _listed(root: Path, splits: dict[str, Split]) -> dict[str, Split]:
    """Divide an undivided dataset by lists of names, such as those of Pascal VOC, if they are there."""
    folders = [folder for name in ('ImageSets/Segmentation', 'splits', '.') if (folder := root / name).is_dir()]
    lists = [
        file for folder in folders for file in files(folder) if file.suffix == '.txt' and is_split_folder(file.stem)
    ]
    if set(splits) != {''} or not lists:
        return splits
    by_stem = {Path(sample.path).stem: sample for sample in splits[''].samples}
    parts: dict[str, Split] = {}
    for file in lists:
        stems = [Path(line.strip()).stem for line in file.read_text(encoding='utf-8').splitlines()]
        samples = [by_stem[stem] for stem in stems if stem in by_stem]
        if samples:
            parts.setdefault(split_of(file.stem) or '', Split(samples))
    return parts or splits


def read_mask(path: str) -> np.ndarray:
    """Return the values of a label map, int64 [H, W]; colours become numbers 0xRRGGBB, greys stored as RGB stay."""
    with Image.open(path) as image:
        mode = {'1': 'L', 'LA': 'L'}.get(image.mode, image.mode if image.mode in ('L', 'P', 'RGB') else None)
        is_number = image.mode.startswith('I')
        values = np.asarray(image if is_number else image.convert(mode or 'RGB')).astype(np.int64)
    if values.ndim == 2:
        return values
    red, green, blue = values[..., 0], values[..., 1], values[..., 2]
    if (red == green).all() and (green == blue).all():
        return red
    return red << 16 | green << 8 | blue


def class_ids(labels: np.ndarray, values: dict[int, int]) -> np.ndarray:
    """Return the class ids of a label map, uint8 [H, W]; 255 for pixels without a class.

    Args:
        labels (ndarray[H, W]): Its values, int64.
        values (dict[int, int]): Class by value.
    """
    found, inverse = np.unique(labels, return_inverse=True)
    table = np.array([values.get(value, IGNORED) for value in found.tolist()], np.uint8)
    return table[inverse].reshape(labels.shape)


def _count_values(sample: Sample) -> None:
    if sample.fault or not sample.mask:
        return
    try:
        labels = read_mask(sample.mask)
    except Exception as error:  # whatever Pillow raises for bytes that it does not expect
        sample.fault = f'its label map {sample.mask}: {error}'
        return
    if sample.size and labels.shape != sample.size[::-1]:
        height, width = labels.shape
        sample.stated = (width, height)
        sample.source = sample.mask
    values, counts = np.unique(labels, return_counts=True)
    sample.values = dict(zip(values.tolist(), counts.tolist(), strict=True))


def _read_values(data: UserData) -> None:
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(_count_values, data.samples()))


def _class_file(root: Path) -> Path | None:
    return next((root / name for name in _CLASS_FILES if (root / name).is_file()), None)


def _stated_classes(file: Path) -> tuple[list[str], dict[int, int] | None]:
    """Return the names of a file of classes, and the class of every value if it has them."""
    try:
        text = file.read_text(encoding='utf-8-sig')
        if file.suffix == '.csv':
            return _colours(list(csv.reader(text.splitlines())))
        if file.suffix == '.json':
            return _json_classes(json.loads(text))
        names = [line.strip() for line in text.splitlines() if line.strip()]
    except ValueError as error:
        raise UsageError(f'{file} cannot be read: {error}') from error
    numbered = [re.fullmatch(r'(\d+)\s*[:,;\s]\s*(.+)', name) for name in names]
    if names and all(numbered):
        return _by_value({int(match[1]): match[2] for match in numbered if match})
    return names, None


def _colours(rows: list[list[str]]) -> tuple[list[str], dict[int, int] | None]:
    rows = [[cell.strip() for cell in row] for row in rows if row and all(cell.strip().isdigit() for cell in row[1:4])]
    numbers = {int(r) << 16 | int(g) << 8 | int(b): name for name, r, g, b, *_ in rows}
    return list(numbers.values()), {value: index for index, value in enumerate(numbers)}


def _by_value(names: dict[int, str]) -> tuple[list[str], dict[int, int]]:
    values = sorted(names)
    return [names[value] for value in values], {value: index for index, value in enumerate(values)}


def _json_classes(content: object) -> tuple[list[str], dict[int, int] | None]:
    if isinstance(content, dict) and isinstance(content.get('classes'), list | dict):
        content = content['classes']
    if isinstance(content, list) and all(isinstance(name, str) for name in content):
        return list(content), None
    if isinstance(content, list) and all(isinstance(item, dict) and {'id', 'name'} <= item.keys() for item in content):
        return _by_value({int(item['id']): str(item['name']) for item in content})
    if isinstance(content, dict) and content and all(str(key).isdigit() for key in content):
        return _by_value({int(key): str(name) for key, name in content.items()})
    if isinstance(content, dict) and content and all(isinstance(value, int) for value in content.values()):
        return _by_value({value: str(name) for name, value in content.items()})
    if isinstance(content, dict) and content and all(isinstance(v, list) and len(v) == 3 for v in content.values()):
        return _colours([[str(name), *map(str, colour)] for name, colour in content.items()])
    raise ValueError('expected a list of names, or an object with names by value or values by name')


def _name_classes(data: UserData) -> None:
    """Decide which class every value of the label maps is."""
    maps = Counter(value for sample in data.samples() for value in sample.values)
    used = sorted(maps)
    file = _class_file(data.root)
    if file is None and len(used) > _MAX_VALUES:
        many = max(data.samples(), key=lambda sample: len(sample.values))
        data.findings.problem(
            f'The label maps have {len(used)} different values; '
            'they are photographs or colours that blur, not classes:',
            f'{many.mask}: {len(many.values)} values',
        )
        used = []
    if file is None:
        # A map of 0 and 255 has two classes; beside others, 255 marks what has none.
        kept = [value for value in used if len(used) <= 2 or value not in _ignored(used)]
        data.classes = [f'#{value:06x}' if value > 0xFFFF else str(value) for value in kept]
        data.values = {value: index for index, value in enumerate(kept)}
    else:
        names, stated = _stated_classes(file)
        data.classes, data.values = names, _by_rank(maps, names) if stated is None else stated
        _report_names(data, file)
    if len(data.classes) < 2 and used:
        data.findings.problem(
            'A segmentor needs two classes or more; the label maps have:', f'{data.classes or "none"}'
        )
    _report_unknown(data)


def _report_names(data: UserData, file: Path) -> None:
    for index, name in enumerate(data.classes):
        if name in data.classes[:index]:
            data.findings.problem('Classes with the same name:', f'{file}: {name!r}')


def _ignored(used: list[int]) -> set[int]:
    """Return the values that mark pixels without a class; in label maps of colours, 255 is blue."""
    return {IGNORED} if not used or max(used) <= IGNORED else set()


def _by_rank(used: Counter[int], names: list[str]) -> dict[int, int]:
    """Return the class of every value, where a file has names alone.

    Values count from 0; or from 1, where 0 are pixels without a class; or they are as many as the names. One label map
    with a value that is one too high does not make all others count from 1, nor does a background with a name.

    Args:
        used (Counter[int]): Label maps by value.
        names (list[str]): Names by class.
    """
    count, from_zero = len(names), {value: value for value in range(len(names))}
    plain = [value for value in used if value not in _ignored(list(used))]
    if sorted(used) == [0, IGNORED] and count == 2:
        return {0: 0, IGNORED: 1}
    if not plain or max(plain) < count:
        return from_zero
    is_usual = used[count] > 1 or max(used.values()) == 1
    if max(plain) == count and (0 not in used or (is_usual and not _BACKGROUND.fullmatch(names[0]))):
        return {value + 1: value for value in range(count)}
    if len(used) == count:
        return {value: index for index, value in enumerate(sorted(used))}
    return from_zero


def _report_unknown(data: UserData) -> None:
    used = sorted({value for sample in data.samples() for value in sample.values})
    ignored = _ignored(used) | ({0} if data.values.get(1) == 0 else set())
    if without := sorted(ignored.intersection(used) - data.values.keys()):
        data.findings.note(f'Pixels of the value {" and ".join(map(str, without))} have no class and are ignored')
    for sample in data.samples():
        unknown = sorted(sample.values.keys() - data.values.keys() - ignored)
        if unknown and data.values:
            shown = ', '.join(map(str, unknown[:8])) + (', …' if len(unknown) > 8 else '')
            data.findings.problem(
                f'Values of label maps beyond the {len(data.classes)} classes:', f'{sample.mask}: {shown}'
            )
    blank = Counter(
        sample.mask for sample in data.samples() if sample.values and not sample.values.keys() & data.values.keys()
    )
    if blank:
        data.findings.note('Label maps without a pixel of any class:', *map(str, blank))


def is_direct(data: UserData) -> bool:
    """Return whether the label maps can be trained on as they are: class ids, with 255 for pixels without a class."""
    return all(value == index for value, index in data.values.items()) and _are_plain(data)


def counts_from_one(data: UserData) -> bool:
    """Return whether the label maps are class ids from 1, with 0 for pixels without a class."""
    return bool(data.values) and all(value == index + 1 for value, index in data.values.items()) and _are_plain(data)


def _are_plain(data: UserData) -> bool:
    """Return whether all label maps have one channel of bytes, whose values MMSegmentation reads as they are."""
    for sample in data.samples():
        if sample.mask:
            with Image.open(sample.mask) as image:
                if image.mode not in ('L', 'P'):
                    return False
    return True
