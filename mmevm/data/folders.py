"""Datasets for classification: a folder of images for each class, with or without folders for the splits."""

import os
import re
from collections import Counter
from collections.abc import Iterable
from itertools import product
from pathlib import Path

import numpy as np

from mmevm.data.images import measure, read_pixels
from mmevm.data.pairs import IMAGE_FOLDERS, MASK_ENDING, MASK_FOLDERS
from mmevm.data.records import (
    Findings,
    Sample,
    Split,
    UserData,
    images_below,
    split_folders,
    split_of,
    subfolders,
    unused_images,
)
from mmevm.engine.checks.class_lists import hint
from mmevm.errors import UsageError

_UNKNOWN = 'Folders of a class that the training split does not have:'

# Of datasets for other tasks whose annotations are missing or unknown.
_NO_CLASSES = {'imagesets', *IMAGE_FOLDERS, *MASK_FOLDERS}

# Of training runs, which write images.
_RUNS = {
    'work_dirs', 'work_dir', 'runs', 'wandb', 'lightning_logs', 'tb_logs', 'mlruns', 'output', 'outputs', 'checkpoints',
}  # fmt: skip

_LABELS = re.compile(r'mask|label|segment|annot|ground.?truth|(?<![a-z])(gt|seg)(?![a-z])', re.IGNORECASE)
_OBJECTS = re.compile(r'"(shapes|objects|annotations|regions|bbox|boxes|polygon|points)"')


def read(path: Path) -> UserData | None:
    """Read a folder of class folders; ``None`` for a folder of another layout."""
    if path.is_file():
        return None
    findings = Findings()
    named = split_folders(path, findings)
    parts = {split: folder for split, folder in named.items() if any(map(images_below, subfolders(folder)))}
    flat = [str(folder) for split, folder in named.items() if split not in parts and images_below(folder)]
    if parts and flat:
        findings.note('Splits without a folder of any class, left out:', *flat)
    elif not parts:
        if flat and sum(map(_is_class, subfolders(path))) < len(flat):  # images of splits, without annotations
            return None
        parts, findings = {'': path}, Findings()
        if flat:
            findings.note('Folders named like splits, taken for classes:', *flat)
    folders = {split: subfolders(folder) for split, folder in parts.items()}
    if '' in folders:
        folders[''] = [folder for folder in folders[''] if folder.name.casefold() not in _RUNS]
    folders = {split: found for split, found in folders.items() if found and any(map(images_below, found))}
    names = {folder.name.casefold() for found in folders.values() for folder in found}
    if not folders or names <= _NO_CLASSES:
        return None
    first = folders.get('train') or next(iter(folders.values()))
    classes = sorted(folder.name for folder in first)
    if not {folder.name for folder in folders.get('test', first)} & set(classes):
        folders.pop('test')
        findings.note('The test split has no folder of any class and is left out')
    for inner in folders.values():
        _refuse_other_tasks(path, inner)
    splits = {split: _read_split(split, found, classes, findings) for split, found in folders.items()}
    places = {place for inner in folders.values() for place in inner} | set(map(Path, flat))
    if unused := unused_images(path, places):
        findings.note('Images outside of the folders of classes, left out:', *unused)
    if len(classes) < 2:
        findings.problem('A classifier needs two classes or more, each with a folder of images:', *map(str, first))
    found = {sample.label for split in splits.values() for sample in split.samples}
    empty = [str(folder) for folder in first if classes.index(folder.name) not in found]
    if empty:
        findings.problem('Folders of classes without an image in any split:', *empty)
    counts = Counter(name.casefold() for name in classes)
    if similar := [str(folder) for folder in first if counts[folder.name.casefold()] > 1]:
        findings.note('Classes whose names differ in case alone; merge their folders if they are one:', *similar)
    for name in classes:
        if not name.isprintable():
            findings.problem('Names of classes that cannot be written as UTF-8 text:', repr(name))
    data = UserData('classification', 'class folders', path, classes, splits, findings)
    measure(data.samples())
    return data


def _is_class(folder: Path) -> bool:
    """Return whether a folder has images and a name that nothing but a class has."""
    is_other = split_of(folder.name) or folder.name.casefold() in _NO_CLASSES | _RUNS
    return not is_other and bool(images_below(folder))


def _read_split(split: str, folders: list[Path], classes: list[str], findings: Findings) -> Split:
    samples = []
    for folder in folders:
        images = images_below(folder)
        if folder.name in classes:
            samples += [Sample(image, label=classes.index(folder.name)) for image in images]
        elif images:
            findings.problem(_UNKNOWN, f'{folder}{hint(folder.name, classes, "train")}')
    return Split(samples)


def _refuse_other_tasks(root: Path, folders: list[Path]) -> None:
    """Refuse folders of images and of label maps, and images with files of objects beside them.

    Raises:
        UsageError: They are no class folders.
    """
    images = {folder: images_below(folder) for folder in folders}
    files = [f'{os.path.splitext(image)[0]}.json' for found in images.values() for image in found[:20]]
    beside = [file for file in files if os.path.isfile(file)]
    if beside and 2 * len(beside) >= len(files) and _OBJECTS.search(Path(beside[0]).read_text(errors='replace')):
        raise UsageError(
            f'{root} looks like a dataset for detection or segmentation: {beside[0]} describes objects. Convert such '
            'files to COCO, or move them away if the folders are classes.'
        )
    suspects = [folder for folder in folders if images[folder] and _LABELS.search(_spaced(folder.name))]
    named = {folder: _by_name(folder, found) for folder, found in images.items()} if suspects else {}
    for maps, others in product(suspects, folders):
        if maps != others and _are_label_maps(named[maps], named[others]):
            raise UsageError(
                f'{root} looks like a dataset for segmentation: {maps} has label maps of the images in {others}. '
                'Name the folders masks and images, and each label map like its image.'
            )


def _are_label_maps(maps: dict[str, str], images: dict[str, str]) -> bool:
    """Return whether nearly all images have the names of others, and are drawn where those are photographs."""
    common = sorted(maps.keys() & images.keys())
    return (
        len(common) >= 0.9 * len(maps)
        and all(_is_drawn(maps[name]) for name in common[:3])
        and not any(_is_drawn(images[name]) for name in common[:3])
    )


def _spaced(name: str) -> str:
    """Return a name with spaces between its words: ``gtFine`` becomes ``gt Fine``."""
    return re.sub(r'(?<=[a-z])(?=[A-Z])', ' ', name)


def _by_name(folder: Path, images: Iterable[str]) -> dict[str, str]:
    """Return images by name, without suffix, the folder's name in it, and an ending such as ``_mask``."""
    found = {}
    for image in images:
        name = os.path.splitext(image[len(str(folder)) :])[0]
        found[MASK_ENDING.sub('', name.partition(f'_{folder.name}')[0])] = image
    return found


def _is_drawn(image: str) -> bool:
    """Return whether nearly all pixels have one of few colours, as those of label maps have."""
    try:
        pixels = read_pixels(image)
    except UsageError:
        return False
    height, width = pixels.shape[:2]
    colours = pixels.reshape(height * width, -1)[:: height * width // 50_000 + 1]
    counts = np.unique(colours, axis=0, return_counts=True)[1]
    return bool(np.sort(counts)[-32:].sum() >= 0.9 * counts.sum())
