"""Text files that divide a dataset: a list of its images for each split."""

import re
from collections.abc import Callable, Iterable
from pathlib import Path

from mmevm.data.records import Findings, files, is_split_folder, split_of, text_lines
from mmevm.errors import UsageError

_UNDIVIDED = re.compile(r'^train[_-]?val\d*$')
_OF_A_CLASS = re.compile(r'[_-](train|val|trainval|test)$')


def split_lists(folder: Path) -> dict[str, list[Path]]:
    """Return the lists in a folder by split: those of its very name, else of one like it, else of classes in it.

    ``trainval`` counts where ``train`` is not there.
    """
    lists = _texts(folder)
    found: dict[str, list[Path]] = {}
    for is_meant in (_is_plain, is_split_folder, lambda name: bool(_UNDIVIDED.match(name.casefold())), split_of):
        if found and is_meant is split_of:
            break
        meant: dict[str, list[Path]] = {}
        for file in filter(lambda file: is_meant(file.stem), lists):
            meant.setdefault(split_of(file.stem) or 'train', []).append(file)
        found = meant | found
    return found


def note_unused_lists(
    folders: Iterable[Path], used: Iterable[Path], is_known: Callable[[str], bool], findings: Findings
) -> None:
    """Note lists in folders that are not used; ``is_known`` says whether a line names an image."""
    taken = set(used)
    for file in (file for folder in folders if folder.is_dir() for file in _texts(folder)):
        name = file.stem.casefold()
        if file in taken or (taken and (_OF_A_CLASS.search(name) or _UNDIVIDED.match(name))):
            continue
        lines = _lines(file)
        if lines and 2 * sum(map(is_known, lines)) >= len(lines):
            findings.note('Lists of images that are not used; call them train.txt, val.txt or test.txt:', str(file))


def _texts(folder: Path) -> list[Path]:
    return [file for file in files(folder) if file.suffix.lower() == '.txt']


def _is_plain(name: str) -> bool:
    return name.isalpha() and is_split_folder(name)


def _lines(file: Path) -> list[str]:
    try:
        return text_lines(file)
    except UsageError:  # others than lists may be in any encoding
        return []
