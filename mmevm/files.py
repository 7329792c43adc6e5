"""Files: replaced atomically, hashed, and checked for damage."""

import hashlib
import os
import uuid
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

DRAFT = '.draft'
"""Suffix of a file that is being written; a killed process leaves it behind."""


@contextmanager
def replacing(path: str | os.PathLike) -> Iterator[Path]:
    """Replace a file atomically: yield the path of a draft, and rename the draft once it is written and on the disk.

    After an error the previous file is untouched and the draft is gone.

    Args:
        path (str | os.PathLike): Its folder is created if it is missing.

    Yields:
        Path: Where to write the new content, in the same folder.

    Raises:
        OSError: If there is no space, or the folder is not writable.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Threads, and processes of other machines, may replace the same file.
    draft = path.with_name(f'.{path.name}.{uuid.uuid4().hex[:12]}{DRAFT}')
    try:
        yield draft
        with open(draft, 'rb') as file:
            # Network file systems report a full disk or quota only here.
            os.fsync(file.fileno())
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def folder_fault(folder: str | os.PathLike) -> str | None:
    """Return why a folder can neither be written to nor be made; None if it can."""
    path = Path(folder).absolute()
    first = next(part for part in (path, *path.parents) if os.path.lexists(part))
    if not first.is_dir():
        return f'{first} is not a folder'
    return None if os.access(first, os.W_OK) else f'{first} is not writable'


def file_hash(path: str | os.PathLike) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with open(path, 'rb') as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def archive_damage(path: str | os.PathLike) -> str | None:
    """Return what is wrong with a zip file by its own checksums, which torch does not verify; None for other files."""
    if not zipfile.is_zipfile(path):
        return None
    try:
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
    except (zipfile.BadZipFile, OSError) as error:
        return str(error)
    return f'the checksum of {broken} in it is wrong' if broken else None
