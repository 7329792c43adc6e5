"""Datasets for classification: a folder of images for each class, with or without folders for the splits."""

from pathlib import Path

from mmevm.data.images import measure
from mmevm.data.pairs import IMAGE_FOLDERS, MASK_FOLDERS
from mmevm.data.records import (
    Findings,
    Sample,
    Split,
    UserData,
    images_below,
    split_folders,
    split_of,
    subfolders,
)
from mmevm.engine.checks.class_lists import hint

_UNKNOWN = 'Folders of a class that the training split does not have:'

# Of datasets for other tasks whose annotations are missing or unknown.
_NO_CLASSES = {'imagesets', 'runs', *IMAGE_FOLDERS, *MASK_FOLDERS}


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
    folders = {split: found for split, found in folders.items() if found and any(map(images_below, found))}
    names = {folder.name.casefold() for found in folders.values() for folder in found}
    if not folders or names <= _NO_CLASSES:
        return None
    first = folders.get('train') or next(iter(folders.values()))
    classes = sorted(folder.name for folder in first)
    if not {folder.name for folder in folders.get('test', first)} & set(classes):
        folders.pop('test')
        findings.note('The test split has no folder of any class and is left out')
    splits = {split: _read_split(split, found, classes, findings) for split, found in folders.items()}
    if len(classes) < 2:
        findings.problem('A classifier needs two classes or more, each with a folder of images:', *map(str, first))
    found = {sample.label for split in splits.values() for sample in split.samples}
    empty = [str(folder) for folder in first if classes.index(folder.name) not in found]
    if empty:
        findings.problem('Folders of classes without an image in any split:', *empty)
    for name in classes:
        if not name.isprintable():
            findings.problem('Names of classes that cannot be written as UTF-8 text:', repr(name))
    data = UserData('classification', 'class folders', path, classes, splits, findings)
    measure(data.samples())
    return data


def _is_class(folder: Path) -> bool:
    """Return whether a folder has images and a name that nothing but a class has."""
    is_other = split_of(folder.name) or folder.name.casefold() in _NO_CLASSES
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
