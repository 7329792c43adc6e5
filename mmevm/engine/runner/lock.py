"""One training run at a time in a folder."""

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
from mmengine.logging import print_log

from mmevm.engine.runner.storage import write_file
from mmevm.errors import UsageError, write_fault

_LOCK, _OWNER = '.training.lock', '.training.json'
# The processes that load data notice within this time that the one they load for is gone.
_ORPHANS = 15
# The last: filelock's NotImplementedError has no number.
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, None)


def _owner(folder: Path) -> dict:
    """What the run in ``folder`` wrote about itself."""
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
        else ('unknown process')
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
        lock.acquire(timeout=_ORPHANS if _is_dead(owner) else 0)
    except Timeout:
        raise UsageError(_refusal(folder, _owner(folder))) from None
    except (OSError, NotImplementedError) as error:
        if getattr(error, 'errno', None) not in _NO_LOCKS:
            message = write_fault(error, folder / _LOCK) or f'{folder} cannot be a work folder: {error}.'
            raise UsageError(f'{message} Choose another work folder with --work-dir.') from error
        print_log(
            f'The file system of {folder} has no locks: make sure that no other training run writes there',
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
    """Keep other training runs out of folders; the system lifts the locks of a process that is killed.

    Args:
        folders (Iterable[str | os.PathLike]): Local folders, which are created if they are missing.

    Raises:
        UsageError: A run is writing to one of them, or it cannot be written to.
    """
    with ExitStack() as stack:
        for folder in dict.fromkeys(Path(folder).resolve() for folder in folders):
            stack.enter_context(_locked(folder))
        yield
