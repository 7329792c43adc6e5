"""The cache of downloaded checkpoints: its location, recorded hashes, locks, and damaged files.

Next to ``FILE`` there may be ``FILE.json`` (its recorded hash), ``FILE.incomplete`` (a download to be resumed),
``FILE.lock`` and ``FILE.damaged-HASH`` (a file that failed verification, never opened again).
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout
from mmengine.logging import print_log

from mmevm.files import file_hash, replacing
from mmevm.zoo.entries import Entry


def zoo_folder() -> Path:
    """Return the cache folder: ``zoo`` in ``MMEVM_CACHE`` or, by default, in ``mmevm`` of the XDG cache folder."""
    own = os.environ.get('MMEVM_CACHE')
    shared = os.environ.get('XDG_CACHE_HOME') or '~/.cache'
    return (Path(own) if own else Path(shared) / 'mmevm').expanduser().absolute() / 'zoo'


def cached_path(entry: Entry) -> Path:
    """Return the path of an entry's file in the cache, whether it is there or not."""
    return zoo_folder() / entry.file


def sibling(path: Path, suffix: str) -> Path:
    """Return ``FILE.suffix`` for ``FILE``."""
    return path.with_name(f'{path.name}.{suffix}')


def recorded_hash(path: Path) -> str | None:
    """Return the SHA-256 that was recorded when ``path`` was first verified, or None."""
    try:
        return json.loads(sibling(path, 'json').read_text())['sha256']
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        print_log(f'{sibling(path, "json")} is not a hash record; verifying the file again', logger='current')
        return None


def record_hash(path: Path, sha256: str, entry: Entry) -> None:
    """Record the hash that ``path`` must have from now on, after a new download too."""
    with replacing(sibling(path, 'json')) as draft:
        draft.write_text(json.dumps({'name': entry.name, 'url': entry.url, 'sha256': sha256}, indent=2) + '\n')


def set_aside(path: Path, name: str) -> Path:
    """Rename a damaged or unsuitable file so that nothing opens it again; return its new path."""
    aside = path.with_name(f'{name}.damaged-{file_hash(path)[:8]}')
    os.replace(path, aside)
    return aside


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Let one process at a time download ``path``; the others wait, and find it afterwards.

    Raises:
        OSError: If the folder cannot be written to.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(sibling(path, 'lock'))
    try:
        lock.acquire(blocking=False)
    except Timeout:
        print_log(f'Waiting for another process that is downloading {path.name}', logger='current')
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
