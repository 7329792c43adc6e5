"""Files that are there whole or not at all: written beside their place, flushed to the disk, then renamed."""

import os
from pathlib import Path

from mmengine.fileio import LocalBackend, register_backend
from mmengine.fileio.io import backend_instances

from mmevm.errors import UsageError, write_fault

_DRAFT = '.draft'


def write_file(path: str | os.PathLike, content: bytes) -> None:
    """Replace the file at ``path`` by ``content`` in one step.

    Args:
        path (str | os.PathLike): Its folder is created if it is missing.
        content (bytes): The whole file.

    Raises:
        UsageError: There is no space, or the folder cannot be written to. What was at ``path`` before is untouched.
    """
    path = Path(path)
    draft = path.with_name(f'.{path.name}.{os.getpid()}{_DRAFT}')
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(draft, 'wb') as file:
                file.write(content)
                file.flush()
                # Network file systems report a full disk or quota only here.
                os.fsync(file.fileno())
            os.replace(draft, path)
        finally:
            draft.unlink(missing_ok=True)
    except OSError as error:
        message = write_fault(error, path, len(content))
        if message is None:
            raise
        raise UsageError(message) from error


def remove_drafts(folder: str | os.PathLike) -> None:
    """Delete what processes that were killed while writing have left in ``folder``."""
    for draft in Path(folder).glob(f'.*{_DRAFT}'):
        draft.unlink(missing_ok=True)


class DurableBackend(LocalBackend):
    """MMEngine's local file backend, with :func:`write_file` for whole files."""

    def put(self, obj: bytes, filepath: str | os.PathLike) -> None:
        """Write bytes."""
        write_file(filepath, obj)

    def put_text(self, obj: str, filepath: str | os.PathLike, encoding: str = 'utf-8') -> None:
        """Write text."""
        write_file(filepath, obj.encode(encoding))


def register_durable_backend() -> None:
    """Let MMEngine write local files through :class:`DurableBackend` in this process."""
    register_backend('local', DurableBackend, force=True, prefixes='')
    # Backends that were made before would go on in its place.
    backend_instances.clear()
