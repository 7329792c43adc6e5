"""Errors that command line tools show as a message without a traceback."""

import errno
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from mmevm.checkpoint.weights_only import CheckpointError

_WRITE_FAULTS = {
    errno.ENOSPC: 'the disk is full',
    errno.EDQUOT: 'the disk quota is used up',
    errno.EFBIG: 'the file would exceed the file size limit (ulimit -f)',
    errno.EROFS: 'the file system is read-only',
    errno.EACCES: 'permission denied',
    errno.EPERM: 'permission denied',
}


class UsageError(Exception):
    """An error that the user can fix; the message says what was expected, what was found and what to do.

    Attributes:
        in_one_process (bool): Whether it may occur in any single process of a distributed run, which must print it.
    """

    in_one_process = False


def size(count: float) -> str:
    """Format a number of bytes."""
    unit, name = next(
        (unit, name)
        for unit, name in ((1e9, 'GB'), (1e6, 'MB'), (1e3, 'kB'), (1, 'bytes'))
        if count >= unit or unit == 1
    )
    return f'{count / unit:.4g} {name}'


def free_space(path: str | os.PathLike) -> int:
    """Return the bytes that this process may still write where ``path`` is or would be."""
    path = Path(path).absolute()
    usage = shutil.disk_usage(next(folder for folder in (path, *path.parents) if folder.exists()))
    # Some mounted object stores report 0 bytes.
    return usage.free if usage.total else sys.maxsize


def write_fault(error: OSError, path: str | os.PathLike | None = None, needed: int = 0) -> str | None:
    """Explain why a file could not be written.

    Args:
        error (OSError): The system's error.
        path (str | os.PathLike | None): The file, by default that of the error.
        needed (int): Its size in bytes, if known.

    Returns:
        str | None: The message, or None if the error is not about space or permission.
    """
    cause = _WRITE_FAULTS.get(error.errno or 0)
    if cause is None:
        return None
    if path is None and isinstance(error, PermissionError) and error.errno != errno.EROFS:
        return f'Permission denied: {error.filename}'  # it may have been opened for reading
    path = path or error.filename
    message = f'Cannot write{f" {Path(path).absolute()}" if path else ""}: {cause}.'
    if error.errno == errno.ENOSPC and needed:
        free = free_space(path)
        missing = size(max(needed - free, 0))
        message += f' The file takes {size(needed)} and {size(free)} are free: {missing} are missing.'
    elif needed and error.errno in (errno.EDQUOT, errno.EFBIG):
        message += f' The file takes {size(needed)}.'
    return message


def exit_status(run: Callable[[], None]) -> int:
    """Run a tool and print errors that the user can fix to stderr.

    Returns:
        int: 0, or 2 after a :class:`UsageError`, a checkpoint that cannot be loaded, or a file that cannot be written.
    """
    try:
        run()
    except (UsageError, CheckpointError, OSError) as error:
        message = str(error) if isinstance(error, UsageError | CheckpointError) else write_fault(error)
        if message is None:
            raise
        # One process of a distributed run prints it for all.
        if os.environ.get('RANK', '0') == '0' or getattr(error, 'in_one_process', False):
            print(f'\n{message}', file=sys.stderr)
        return 2
    return 0
