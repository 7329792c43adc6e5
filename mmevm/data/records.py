"""What a dataset consists of, whatever its layout on the disk."""

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Set
from dataclasses import dataclass, field
from pathlib import Path, PureWindowsPath
from typing import Any

from mmevm.errors import UsageError

SPLITS = ('train', 'val', 'test')
IMAGE_SUFFIXES = frozenset('.jpg .jpeg .jpe .jfif .png .bmp .gif .webp .avif .ppm .pgm .tif .tiff .npy'.split())
"""What OpenMMLab's loaders read."""

OTHER_SUFFIXES = frozenset('.heic .heif .jxl .jp2 .mpo .pbm .tga .dcm .svg .psd .dng .cr2 .nef .arw .raf'.split())
"""What they do not read, and users have all the same."""

_HIDDEN = {'__macosx', '__pycache__', '@eadir', '@recycle'}
_ALIASES = {
    'train': ('train', 'training', 'trainset', 'trn'),
    'val': ('val', 'valid', 'validation', 'valset', 'minival', 'dev', 'eval'),
    'test': ('test', 'testing', 'testset'),
}
_SPLIT_OF = {alias: split for split, aliases in _ALIASES.items() for alias in aliases}


@dataclass(slots=True)
class Thing:
    """An object in an image.

    Attributes:
        category (int): Index of its class.
        box (tuple[float, float, float, float]): x, y, width and height in pixels.
        shape (list | dict | None): Polygons or run lengths, as COCO has them in ``segmentation``.
        crowd (bool): Whether it is neither trained on nor expected to be found.
        source (str): Where it is annotated.
        faulty (bool): Whether a check has found that it cannot be used.
    """

    category: int
    box: tuple[float, float, float, float]
    shape: Any = None
    crowd: bool = False
    source: str = ''
    faulty: bool = False

    @property
    def is_trained_on(self) -> bool:
        """Whether MMDetection trains on it: it passes over crowds and over boxes of less than a pixel."""
        return not self.crowd and min(self.box[2:]) >= 1


@dataclass(slots=True)
class Sample:
    """An image and what is known of it.

    Attributes:
        path (str): The image.
        things (list[Thing]): Objects, in detection datasets.
        label (int | None): Index of its class, in classification datasets.
        mask (str | None): Label map, in segmentation datasets.
        size (tuple[int, int] | None): Width and height as decoded.
        stated (tuple[int, int] | None): Width and height according to its annotations.
        source (str): Where it is listed, if not by a folder.
        number (int | None): Its id in a COCO file.
        values (dict[int, int]): Pixels by value of the label map.
        fault (str): Why it cannot be used.
        deep (bool): Whether its values have 16 bits.
        banded (bool): Whether it is a TIFF of more than three bands.
        orientation (int): Its EXIF orientation, which loaders apply: 1 is upright.
    """

    path: str
    things: list[Thing] = field(default_factory=list)
    label: int | None = None
    mask: str | None = None
    size: tuple[int, int] | None = None
    stated: tuple[int, int] | None = None
    source: str = ''
    number: int | None = None
    values: dict[int, int] = field(default_factory=dict)
    fault: str = ''
    deep: bool = False
    banded: bool = False
    orientation: int = 1


@dataclass
class Split:
    """A part of a dataset.

    Attributes:
        samples (list[Sample]): Its images.
        annotations (str): The COCO file that has exactly this content, or ''.
        prefix (str): The folder to which the file's names are relative.
    """

    samples: list[Sample]
    annotations: str = ''
    prefix: str = ''


@dataclass
class Findings:
    """What is wrong with a dataset, by heading; every item names a file.

    Attributes:
        problems (dict[str, list[str]]): They have to be put right.
        faults (dict[str, list[str]]): Images and objects that can be left out.
        notes (dict[str, list[str]]): Worth knowing.
    """

    problems: dict[str, list[str]] = field(default_factory=dict)
    faults: dict[str, list[str]] = field(default_factory=dict)
    notes: dict[str, list[str]] = field(default_factory=dict)

    def problem(self, heading: str, *items: str) -> None:
        """Add a problem."""
        self.problems.setdefault(heading, []).extend(items)

    def fault(self, heading: str, *items: str) -> None:
        """Add images or objects that cannot be used."""
        self.faults.setdefault(heading, []).extend(items)

    def note(self, heading: str, *items: str) -> None:
        """Add a note."""
        self.notes.setdefault(heading, []).extend(items)


@dataclass
class UserData:
    """A dataset of a user.

    Attributes:
        kind (str): ``'detection'``, ``'classification'`` or ``'segmentation'``.
        layout (str): Its layout on the disk, in words.
        root (Path): Its folder.
        classes (list[str]): Names by index.
        splits (dict[str, Split]): By name; without any name found, all images are in ``''``.
        findings (Findings): What is wrong with it.
        values (dict[int, int]): Class index by value of the label maps; ignored values are absent.
        colours (bool): Whether these values are colours, 0xRRGGBB.
        file (Path | None): The annotation file of all images, of a dataset in COCO's format that is not divided.
        redrawn (bool): Whether the split to evaluate was drawn again, as it had been for training.
    """

    kind: str
    layout: str
    root: Path
    classes: list[str]
    splits: dict[str, Split]
    findings: Findings
    values: dict[int, int] = field(default_factory=dict)
    colours: bool = False
    file: Path | None = None
    redrawn: bool = False

    @property
    def source(self) -> Path:
        """What tells it from others: its annotation file, if all images are in one, else its folder."""
        return self.file or self.root

    def samples(self) -> Iterator[Sample]:
        """Yield the images of all splits, once if a split stands in for another."""
        for split in {id(split): split for split in self.splits.values()}.values():
            yield from split.samples

    @property
    def has_shapes(self) -> bool:
        """Whether any object has more than a box."""
        return any(thing.shape for sample in self.samples() for thing in sample.things)


def split_of(name: str) -> str | None:
    """Return the split that a file or folder is named after: ``instances_val2017.json`` is of ``'val'``."""
    words = [re.sub(r'\d+$', '', word) for word in re.split(r'[^a-z0-9]+', name.casefold())]
    return next((_SPLIT_OF[word] for word in words if word in _SPLIT_OF), None)


def is_split_folder(name: str) -> bool:
    """Return whether a folder is named after a split and nothing else: ``train``, ``val2017``, ``training_set``."""
    return re.sub(r'([_-]?(set|data|images|split))?\d*$', '', name.casefold()) in _SPLIT_OF


def is_image(path: str | os.PathLike) -> bool:
    """Return whether a file has the suffix of an image."""
    name = os.path.basename(path)
    return not name.startswith('.') and os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES


def is_hidden(name: str) -> bool:
    """Return whether a folder is not the user's: ``.git``, ``__MACOSX``, a network drive's ``@eaDir``."""
    return name.startswith('.') or name.casefold() in _HIDDEN


def subfolders(folder: Path) -> list[Path]:
    """Return the visible folders in a folder, sorted by name."""
    return sorted(Path(entry.path) for entry in os.scandir(folder) if entry.is_dir() and not is_hidden(entry.name))


def files(folder: Path) -> list[Path]:
    """Return the visible files in a folder, sorted by name."""
    return sorted(Path(entry.path) for entry in os.scandir(folder) if entry.is_file() and entry.name[0] != '.')


def images_below(folder: Path) -> list[str]:
    """Return the images in a folder and in the folders in it, sorted; links are followed."""
    return sorted(os.path.join(parent, name) for parent, names in _walk(folder) for name in names if is_image(name))


def has_images(folder: Path) -> bool:
    """Return whether an image is in a folder or in the folders in it; it looks no further than the first."""
    return any(is_image(name) for _, names in _walk(folder) for name in names)


def unused_images(folder: Path, used: Set[Path]) -> list[str]:
    """Return the images in a folder and the folders with images, outermost ones, that are not in those used."""
    if folder in used:
        return []
    if not any(folder in place.parents for place in used):
        return [str(folder)] if has_images(folder) else []
    inside = [text for inner in subfolders(folder) for text in unused_images(inner, used)]
    return inside + [str(file) for file in files(folder) if is_image(file)]


def unread_below(folder: Path) -> list[str]:
    """Return the images in formats that OpenMMLab's loaders do not read, sorted."""
    return sorted(
        os.path.join(parent, name)
        for parent, names in _walk(folder)
        for name in names
        if os.path.splitext(name)[1].lower() in OTHER_SUFFIXES
    )


def _walk(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield folders and the names of their files; one that links lead to again is not entered a second time."""
    seen = {os.path.realpath(folder)}
    for parent, folders, names in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not is_hidden(name)]
        for name in list(folders):
            real = os.path.realpath(os.path.join(parent, name))
            if real in seen:
                folders.remove(name)
            seen.add(real)
        yield parent, names


def text_lines(file: Path) -> list[str]:
    """Return the lines of a text file that are not blank, stripped.

    Raises:
        UsageError: It is not in UTF-8.
    """
    try:
        text = file.read_text(encoding='utf-8-sig')
    except ValueError as error:
        raise UsageError(f'{file} is not text in UTF-8: {error}. Save it in UTF-8.') from error
    return [line.strip() for line in text.splitlines() if line.strip()]


def plain_name(name: str) -> str:
    """Return the name of a file, of Windows or not, with slashes between its folders."""
    return PureWindowsPath(name).as_posix() if '\\' in name else name


def split_folders(parent: Path, findings: Findings) -> dict[str, Path]:
    """Return the folder of every split in a folder; several for one are a problem."""
    found: dict[str, Path] = {}
    for folder in subfolders(parent):
        if not is_split_folder(folder.name):
            continue
        split = split_of(folder.name) or ''
        if split in found:
            findings.problem(f'Several folders for the split {split}; merge them:', f'{found[split]} and {folder}')
        found.setdefault(split, folder)
    return found


def repeated(values: Iterable[Any]) -> list[Any]:
    """Return the values that occur more than once."""
    return [value for value, count in Counter(values).items() if count > 1]
