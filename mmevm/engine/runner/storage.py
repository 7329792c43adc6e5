"""Atomic writes, and locks that keep a folder to one training run."""

import errno
import json
import logging
import os
import socket
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from filelock import FileLock, Timeout
from mmengine.fileio import LocalBackend, register_backend
from mmengine.logging import print_log

from mmevm._patches import forget_file_backends
from mmevm.errors import UsageError, write_fault
from mmevm.files import DRAFT, replacing

_LOCK, _OWNER = '.training.lock', '.training.json'
# Data loading processes notice within this time that their training process is gone.
_ORPHAN_SECONDS = 15
# The last one stands for filelock's NotImplementedError, which has no number.
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, None)


def write_file(path: str | os.PathLike, content: bytes) -> None:
    """Replace the file at ``path`` by ``content`` atomically: write a draft, flush it to the disk, rename it.

    A missing folder is created.

    Raises:
        UsageError: There is no space, or the folder is not writable. The previous file at ``path`` is untouched.
    """
    try:
        with replacing(path) as draft:
            draft.write_bytes(content)
    except OSError as error:
        message = write_fault(error, path, len(content))
        if message is None:
            raise
        raise UsageError(message) from error


def remove_drafts(folder: str | os.PathLike) -> None:
    """Delete the drafts that killed processes have left in ``folder``."""
    for draft in Path(folder).glob(f'.*{DRAFT}'):
        draft.unlink(missing_ok=True)


class DurableBackend(LocalBackend):
    """MMEngine's local file backend, with atomic writes."""

    def put(self, obj: bytes, filepath: str | os.PathLike) -> None:
        """Write bytes."""
        write_file(filepath, obj)

    def put_text(self, obj: str, filepath: str | os.PathLike, encoding: str = 'utf-8') -> None:
        """Write text."""
        write_file(filepath, obj.encode(encoding))


def register_durable_backend() -> None:
    """Let MMEngine write local files through :class:`DurableBackend` in this process."""
    register_backend('local', DurableBackend, force=True, prefixes='')
    forget_file_backends()


def _owner(folder: Path) -> dict:
    """Read what the run in ``folder`` wrote about itself."""
    try:
        owner = json.loads((folder / _OWNER).read_text(encoding='utf-8'))
        return owner if isinstance(owner, dict) else {}
    except (OSError, ValueError):
        return {}


def _is_dead(owner: dict) -> bool:
    if owner.get('host') != socket.gethostname() or not isinstance(owner.get('pid'), int):
        return False
    try:
        os.kill(owner['pid'], 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False


def _refusal(folder: Path, owner: dict) -> str:
    who = (
        'process {pid} on {host}, since {since}'.format_map(owner)
        if {'pid', 'host', 'since'} <= owner.keys()
        else 'unknown process'
    )
    return (
        f'Another training run is writing to {folder} ({who}). Wait for it, stop it, or choose another folder with '
        f'--work-dir. If that machine is gone, delete {folder / _LOCK}.'
    )


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        owner = _owner(folder)
        lock = FileLock(folder / _LOCK)
        lock.acquire(timeout=_ORPHAN_SECONDS if _is_dead(owner) else 0)
    except Timeout:
        raise UsageError(_refusal(folder, _owner(folder))) from None
    except (OSError, NotImplementedError) as error:
        if getattr(error, 'errno', None) not in _NO_LOCKS:
            fault = write_fault(error, folder / _LOCK) if isinstance(error, OSError) else None
            message = fault or f'{folder} cannot be a work directory: {error}.'
            raise UsageError(f'{message} Choose another work directory with --work-dir.') from error
        print_log(
            f'The file system of {folder} does not support locks: make sure that no other training run writes there',
            logger='current',
            level=logging.WARNING,
        )
        yield
        return
    try:
        owner = dict(pid=os.getpid(), host=socket.gethostname(), since=time.strftime('%Y-%m-%d %H:%M:%S'))
        write_file(folder / _OWNER, json.dumps(owner).encode())
        yield
    finally:
        (folder / _OWNER).unlink(missing_ok=True)
        lock.release()


@contextmanager
def exclusive(folders: Iterable[str | os.PathLike]) -> Iterator[None]:
    """Lock local folders against other training runs; the system releases the locks of a killed process.

    Missing folders are created.

    Raises:
        UsageError: Another run is writing to one of them, or it is not writable.
    """
    with ExitStack() as stack:
        for folder in dict.fromkeys(Path(folder).resolve() for folder in folders):
            stack.enter_context(_locked(folder))
        yield
