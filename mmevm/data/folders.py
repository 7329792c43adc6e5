"""Datasets for classification: a folder of images for each class, with or without folders for the splits."""

import os
import re
from collections import Counter
from collections.abc import Iterable
from itertools import product
from pathlib import Path

import numpy as np

from mmevm.data.class_files import DIFFER, alike
from mmevm.data.images import is_writable, measure, read_pixels
from mmevm.data.pairs import IMAGE_FOLDERS, MASK_ENDING, MASK_FOLDERS
from mmevm.data.records import (
    Findings,
    Sample,
    Split,
    UserData,
    files,
    has_images,
    images_below,
    is_image,
    is_split_folder,
    split_folders,
    split_of,
    subfolders,
    unused_images,
)
from mmevm.engine.checks.class_lists import hint, listed
from mmevm.errors import UsageError

_UNKNOWN = 'Folders of a class that the training split does not have:'

# Of datasets for other tasks whose annotations are missing or unknown.
_NO_CLASSES = {'imagesets', *IMAGE_FOLDERS, *MASK_FOLDERS}

# Of training runs, which write images.
_RUNS = {
    'work_dirs', 'work_dir', 'runs', 'wandb', 'lightning_logs', 'tb_logs', 'mlruns', 'output', 'outputs', 'checkpoints',
}  # fmt: skip

# What datasets for other tasks have side by side, perhaps with a number behind.
_IMAGE_PARTS = {*IMAGE_FOLDERS, 'photo', 'photos', 'frames', 'rgb', 'input', 'inputs'}
_LABEL_PARTS = {
    *MASK_FOLDERS, 'anno', 'annos', 'ann', 'anns', 'bbox', 'boxes', 'ground_truth', 'groundtruth', 'gts', 'json',
    'jsons', 'labeltxt', 'labels_txt', 'target', 'targets', 'txt', 'xml', 'xmls',
}  # fmt: skip

_LABELS = re.compile(r'mask|label|segment|annot|ground.?truth|(?<![a-z])(gt|seg)(?![a-z])', re.IGNORECASE)
_OBJECTS = re.compile(r'"(shapes|objects|annotations|regions|bbox|boxes|polygon|points)"')


def read(path: Path) -> UserData | None:
    """Read a folder of class folders; ``None`` for a folder of another layout."""
    if path.is_file():
        return None
    findings = Findings()
    named = {split: _unwrapped(folder) for split, folder in split_folders(path, findings).items()}
    parts = {split: folder for split, folder in named.items() if any(map(has_images, subfolders(folder)))}
    flat = [str(folder) for split, folder in named.items() if split not in parts and has_images(folder)]
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
    folders = {split: found for split, found in folders.items() if found and any(map(has_images, found))}
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
        _refuse_other_trees(path, inner)
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
    places_of = {folder.name: str(folder) for folder in first}
    if similar := [places_of[name] for name in alike(classes)]:
        findings.note(f'{DIFFER}; merge their folders if they are one:', *similar)
    if merged := [text for inner in folders.values() for folder in inner if (text := _merged(folder))]:
        findings.note('Folders below folders of classes, the images of which are merged into one class:', *merged)
    for name in classes:
        if not is_writable(name):
            findings.problem('Names of classes that cannot be written as UTF-8 text:', repr(name))
    data = UserData('classification', 'class folders', path, classes, splits, findings)
    measure(data.samples())
    return data


def unpacked(folder: Path) -> Path:
    """Return the only folder in a folder with nothing else, as archives leave it; folders of splits stay."""
    while folder.is_dir() and not files(folder) and len(inner := subfolders(folder)) == 1:
        if is_split_folder(inner[0].name):
            break
        folder = inner[0]
    return folder


def _unwrapped(folder: Path) -> Path:
    """Return the folder of the same name that is all that a split's folder has: ``test_set/test_set``."""
    inner = _with_images(folder)
    if len(inner) == 1 and inner[0].name.casefold() == folder.name.casefold() and not any(map(is_image, files(folder))):
        return _unwrapped(inner[0])
    return folder


def _with_images(folder: Path) -> list[Path]:
    return list(filter(has_images, subfolders(folder)))


def _is_class(folder: Path) -> bool:
    """Return whether a folder has images and a name that nothing but a class has."""
    is_other = split_of(folder.name) or folder.name.casefold() in _NO_CLASSES | _RUNS
    return not is_other and has_images(folder)


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


def _refuse_other_trees(root: Path, folders: list[Path]) -> None:
    """Refuse folders that are splits, copies of a dataset, or datasets, rather than classes.

    Raises:
        UsageError: They are no class folders.
    """
    inner = {folder: _with_images(unpacked(folder)) for folder in folders if has_images(folder)}
    datasets = {folder: parts for folder in inner if (parts := _parts(folder))}
    stems = {folder: stem for folder in inner if folder.parent == root and (stem := _without_split(folder.name))}
    counts = Counter(stems.values())
    named = [folder for folder, stem in stems.items() if len(inner[folder]) > 1 or counts[stem] > 1]
    names = {folder: {place.name.casefold() for place in found} for folder, found in inner.items() if len(found) > 1}
    copies = [folder for folder in names if sum(_are_alike(names[folder], other) for other in names.values()) > 1]
    if datasets:
        shown = [f'{folder} has {listed(parts)}' for folder, parts in datasets.items()]
        why = f'{listed(shown, "; ")}, as datasets have'
    elif named:
        why = f'{listed(list(map(str, named)))} are named like splits'
    elif copies:
        shown = [place.name for place in inner[copies[0]]]
        why = f'{listed(list(map(str, copies)))} have the same folders in them: {listed(shown)}'
    else:
        return
    raise UsageError(
        f'{root} is no folder of class folders: {why}. If they are splits, call them train, val and test; if each is a '
        'dataset, give one of them; if they are classes, put their images directly into them.'
    )


def _are_alike(names: set[str], others: set[str]) -> bool:
    """Return whether two names or more are common, and all that one has; every set is like itself."""
    common = names & others
    return len(common) > 1 and common in (names, others)


def _without_split(name: str) -> str:
    """Return the rest of a name that has a split's word in it, else '': ``seg_train`` becomes ``seg``."""
    if is_split_folder(name):
        return ''
    words = re.split(r'[^a-z0-9]+', name.casefold())
    rest = [word for word in words if not split_of(word)]
    return ' '.join(rest) if len(rest) < len(words) else ''


def _parts(folder: Path) -> list[str]:
    """Return the folders, in a folder or one level below, that datasets have side by side and classes do not."""
    for place in (folder, *subfolders(folder)):
        inner, filled = subfolders(place), _with_images(place)
        splits = [part for part in filled if is_split_folder(part.name)]
        images = [part for part in filled if _part(part) in _IMAGE_PARTS]
        labels = [part for part in inner if _part(part) in _LABEL_PARTS]
        has_both = images or (any(map(is_image, files(place))) and any(part in filled for part in labels))
        if (labels and has_both) or len(splits) > 1 or (splits and splits == filled):
            return [f'{part.relative_to(folder)}/' for part in inner if part in splits + images + labels]
    return []


def _part(folder: Path) -> str:
    return folder.name.casefold().rstrip('0123456789')


def _merged(folder: Path) -> str:
    """Return what is merged into a class whose images are all in several folders below its own, or ''."""
    inner = _with_images(folder)
    if len(inner) < 2 or any(map(is_image, files(folder))):
        return ''
    return f'{folder}: {listed([place.name for place in inner])}'


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
