"""Folders that appear all at once, know what they were made from, and never take the place of someone else's files."""

import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

#: File in each made folder that records the options and the files written.
MARKER = 'mini_data.json'


def _files(folder: Path) -> dict[str, int]:
    """Sizes in bytes of all files below a folder, but for the marker, by relative path."""
    paths = (path for path in sorted(folder.rglob('*')) if not path.is_dir())
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in paths if path.name != MARKER}


def _read_marker(folder: Path) -> dict[str, Any] | None:
    """What the marker records, or None for a folder without one."""
    try:
        marker = json.loads((folder / MARKER).read_text(encoding='utf-8'))
    except (OSError, ValueError):
        return None
    return marker if isinstance(marker, dict) and 'files' in marker and 'options' in marker else None


def is_current(folder: Path, options: Mapping[str, Any]) -> bool:
    """Whether a folder was made from these options and still holds every file as written."""
    marker = _read_marker(folder)
    if marker is None or marker['options'] != dict(options):
        return False
    present = _files(folder)
    return all(present.get(name) == size for name, size in marker['files'].items())


def require_replaceable(folder: Path) -> None:
    """Check that a folder is absent, empty or holds only what :func:`make_folder` put there.

    Args:
        folder (Path): Folder to be made.

    Raises:
        FileExistsError: The folder holds something else.
    """
    if folder.is_dir() and not folder.is_symlink():
        marker = _read_marker(folder)
        written = {} if marker is None else marker['files']
        foreign = [name for name, size in _files(folder).items() if written.get(name) != size]
        if not foreign:
            return
        what = f'holds files that this tool did not write, such as {foreign[0]}'
    elif os.path.lexists(folder):
        what = "is not a folder of this tool's making"
    else:
        return
    raise FileExistsError(
        f'{folder} {what}. Choose another folder with --out, move it away, or give --force, which '
        f'renames it to {_backup_path(folder).name} and writes a new one.'
    )


def _backup_path(folder: Path) -> Path:
    """First free name for what stood at ``folder``."""
    number = 1
    while os.path.lexists(folder.with_name(f'{folder.name}.backup{number}')):
        number += 1
    return folder.with_name(f'{folder.name}.backup{number}')


def _clear(folder: Path) -> Path | None:
    """Free the name ``folder``: delete our own files, set others' aside; returns where those went."""
    try:
        require_replaceable(folder)
    except FileExistsError:
        backup = _backup_path(folder)
        folder.rename(backup)
        return backup
    if folder.is_dir():
        shutil.rmtree(folder)
    return None


def make_folder(folder: Path, options: Mapping[str, Any], write: Callable[[Path], None], force: bool = False) -> None:
    """Write a folder beside its place and move it there once it is complete.

    Args:
        folder (Path): Where it goes.
        options (Mapping[str, Any]): What it is made from, for the marker; JSON types.
        write (Callable[[Path], None]): Fills the empty folder it is given.
        force (bool): Set foreign contents aside instead of refusing.

    Raises:
        FileExistsError: The folder holds something that this function did not write, and ``force`` is not set.
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
