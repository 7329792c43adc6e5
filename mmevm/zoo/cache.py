"""The folder of fetched checkpoints: where it is, the hashes recorded in it, the lock, and files kept aside.

Beside ``FILE`` may lie ``FILE.json`` (its recorded hash), ``FILE.incomplete`` (a download to be resumed), ``FILE.lock``
and ``FILE.damaged-HASH`` (what was found altered or unfit, never opened again).
"""

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout
from mmengine.logging import print_log

from mmevm.zoo.entries import Entry


def zoo_folder() -> Path:
    """Where checkpoints are kept: ``zoo`` in ``MMEVM_CACHE`` or, without it, in ``mmevm`` of the XDG cache folder."""
    own = os.environ.get('MMEVM_CACHE')
    shared = os.environ.get('XDG_CACHE_HOME') or '~/.cache'
    return (Path(own) if own else Path(shared) / 'mmevm').expanduser().absolute() / 'zoo'


def cached_path(entry: Entry) -> Path:
    """Where the file of ``entry`` lies once it has been fetched."""
    return zoo_folder() / entry.file


def beside(path: Path, suffix: str) -> Path:
    """``FILE.suffix`` beside ``FILE``."""
    return path.with_name(f'{path.name}.{suffix}')


def file_hash(path: str | os.PathLike) -> str:
    """SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, 'rb') as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def recorded_hash(path: Path) -> str | None:
    """The SHA-256 that was recorded when ``path`` was first verified."""
    try:
        return json.loads(beside(path, 'json').read_text())['sha256']
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        print_log(f'{beside(path, "json")} is no record of a hash; the file is verified anew', logger='current')
        return None


def record_hash(path: Path, sha256: str, entry: Entry) -> None:
    """Writes the record that later reads and downloads of ``path`` are held to."""
    record, draft = beside(path, 'json'), beside(path, f'json.{os.getpid()}')
    draft.write_text(json.dumps({'name': entry.name, 'url': entry.url, 'sha256': sha256}, indent=2) + '\n')
    os.replace(draft, record)


def set_aside(path: Path, name: str) -> Path:
    """Renames an unfit file so that nothing opens it again, and returns where it is kept."""
    aside = path.with_name(f'{name}.damaged-{file_hash(path)[:8]}')
    os.replace(path, aside)
    return aside


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Lets one process at a time fetch ``path``; the others wait, and then find it there.

    Raises:
        OSError: If the folder cannot be written to.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(beside(path, 'lock'))
    try:
        lock.acquire(blocking=False)
    except Timeout:
        print_log(f'Waiting for another process that fetches {path.name}', logger='current')
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
