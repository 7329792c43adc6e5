"""Folders of miniature data: written atomically, with a record of their options, and never in place of other files."""

import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from demo.mini_data import datasets
from demo.mini_data.datasets import SUBSETS, Options, Progress

MARKER = 'mini_data.json'
"""File in each made folder that records the options and the files written."""

# Increased whenever the same options give other bytes, so that old trees are rendered again.
_RENDERER_VERSION = 3
# Folder and data root below the output folder, and images of training and validation by default.
_DEFAULTS = {
    'coco': ('coco', 'coco', 480, 80),
    'ade20k': ('ade', 'ade/ADEChallengeData2016', 120, 24),
    'imagenet': ('imagenet', 'imagenet', 160, 40),
}
_WRITERS = {'coco': datasets.write_coco, 'ade20k': datasets.write_ade20k, 'imagenet': datasets.write_imagenet}


def _files(folder: Path) -> dict[str, int]:
    """Return the sizes in bytes of all files below a folder, except the marker, by relative path."""
    paths = (path for path in sorted(folder.rglob('*')) if not path.is_dir())
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in paths if path.name != MARKER}


def _read_marker(folder: Path) -> dict[str, Any]:
    """Return the marker's content; without a marker, neither options nor files."""
    try:
        marker = json.loads((folder / MARKER).read_text(encoding='utf-8'))
    except (OSError, ValueError):
        marker = None
    complete = isinstance(marker, dict) and marker.keys() >= {'files', 'options'}
    return marker if complete else {'options': None, 'files': {}}


def is_current(folder: Path, options: Mapping[str, Any]) -> bool:
    """Return whether a folder was made from these options and still holds every file as written."""
    marker = _read_marker(folder)
    return marker['options'] == options and marker['files'].items() <= _files(folder).items()


def require_replaceable(folder: Path) -> None:
    """Raise a FileExistsError unless a folder is absent, empty or holds only what :func:`make_folder` put there."""
    if not os.path.lexists(folder):
        return
    what = 'was not made by this tool'
    if folder.is_dir() and not folder.is_symlink():
        foreign = dict(_files(folder).items() - _read_marker(folder)['files'].items())
        if not foreign:
            return
        what = f'holds files that this tool did not write, such as {min(foreign)}'
    raise FileExistsError(
        f'{folder} {what}. Choose another folder with --out, move it away, or give --force, which '
        f'renames it to {_backup_path(folder).name} and writes a new one.'
    )


def _backup_path(folder: Path) -> Path:
    """Return the first free name to rename ``folder`` to."""
    number = 1
    while os.path.lexists(folder.with_name(f'{folder.name}.backup{number}')):
        number += 1
    return folder.with_name(f'{folder.name}.backup{number}')


def _clear(folder: Path) -> None:
    """Free the name ``folder``: delete our own files, rename a folder with others."""
    try:
        require_replaceable(folder)
    except FileExistsError:
        folder.rename(_backup_path(folder))
    if folder.is_dir():
        shutil.rmtree(folder)


def make_folder(folder: Path, options: Mapping[str, Any], write: Callable[[Path], None], force: bool = False) -> None:
    """Write a folder under a temporary name and rename it once it is complete.

    Args:
        folder (Path): Folder to make.
        options (Mapping[str, Any]): What it is made from, for the marker; JSON types.
        write (Callable[[Path], None]): Fills the empty folder that it is given.
        force (bool): Rename a folder with other files instead of refusing.

    Raises:
        FileExistsError: If the folder holds something that this function did not write, and ``force`` is not set.
    """
    if not force:
        require_replaceable(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = folder.with_name(f'.{folder.name}.partial{os.getpid()}')
    partial.mkdir()
    try:
        write(partial)
        marker = dict(options=dict(options), files=_files(partial))
        (partial / MARKER).write_text(json.dumps(marker, indent=1) + '\n', encoding='utf-8')
        _clear(folder)
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def make_digits(folder: str | os.PathLike, size: int = 64) -> bool:
    """Write scikit-learn's digits as an ImageNet-style tree, unless it exists.

    Args:
        folder (str | os.PathLike): The ``data_root``: gets ``train/`` and ``val/`` with a folder for each digit.
        size (int): Edge of the images in pixels, enlarged from 8.

    Returns:
        bool: False where the tree was there already.

    Raises:
        FileExistsError: If the folder holds files that this function did not write.
    """
    folder, options = Path(folder), dict(source='scikit-learn digits', size=size, train_images=datasets.TRAIN_DIGITS)
    if is_current(folder, options):
        return False
    make_folder(folder, options, lambda root: datasets.write_digits(root, size))
    return True


@dataclass(frozen=True)
class MiniData:
    """One dataset on disk.

    Attributes:
        subset (str): ``'coco'``, ``'ade20k'`` or ``'imagenet'``.
        data_root (Path): What configs call ``data_root``.
        options (Options): What it was rendered from.
        rendered (bool): False where it was there already.
    """

    subset: str
    data_root: Path
    options: Options
    rendered: bool


def _silent(count: int, title: str) -> Iterable[int]:
    return range(count)


def make_mini_data(
    out: str | os.PathLike,
    subsets: Sequence[str] = SUBSETS,
    *,
    seed: int = 0,
    image_size: int = 256,
    train_images: int | None = None,
    val_images: int | None = None,
    force: bool = False,
    progress: Progress = _silent,
) -> list[MiniData]:
    """Render miniature datasets, except those that exist with the same options.

    Args:
        out (str | os.PathLike): Folder that gets ``coco/``, ``ade/ADEChallengeData2016/`` and ``imagenet/``, as
            ``data/`` would hold the real ones.
        subsets (Sequence[str]): Any of ``'coco'``, ``'ade20k'``, ``'imagenet'``.
        seed (int): Equal options give equal bytes.
        image_size (int): Edge of the square images in pixels, at least 64.
        train_images (int | None): Training images per dataset; None for 480, 120 and 160.
        val_images (int | None): Validation images per dataset; None for 80, 24 and 40.
        force (bool): Render even what is there, and rename folders with other files.
        progress (Progress): Shows the progress.

    Returns:
        list[MiniData]: The datasets and their folders.

    Raises:
        ValueError: If an option is out of its range.
        FileExistsError: If a folder holds files that were not rendered, and ``force`` is not set.
    """
    for subset in subsets:
        if subset not in SUBSETS:
            raise ValueError(f'the dataset must be one of {", ".join(SUBSETS)}, got {subset!r}')
    if not subsets:
        raise ValueError(f'at least one dataset of {", ".join(SUBSETS)} must be chosen, got none')
    results, rendered = [], []
    for subset in [subset for subset in SUBSETS if subset in subsets]:
        name, data_root, train, val = _DEFAULTS[subset]
        train, val = (train if train_images is None else train_images), (val if val_images is None else val_images)
        options, folder = Options(subset, seed, image_size, train, val), Path(out) / name
        record = dict(asdict(options), renderer_version=_RENDERER_VERSION)
        data = MiniData(subset, Path(out) / data_root, options, rendered=force or not is_current(folder, record))
        results.append(data)
        if data.rendered:
            rendered.append((folder, record, partial(_WRITERS[subset], options=options, progress=progress)))
    # All folders are checked before the first is rendered.
    for folder, _, _ in rendered if not force else ():
        require_replaceable(folder)
    for folder, record, write in rendered:
        make_folder(folder, record, write, force)
    return results
