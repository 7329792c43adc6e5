"""A checkpoint by name: from the cache if it is intact there, otherwise downloaded; verified in either case."""

import logging
import os
from pathlib import Path

from mmengine.logging import print_log

from mmevm.checkpoint.weights_only import CheckpointError
from mmevm.zoo.cache import cached_path, locked, record_hash, recorded_hash, set_aside, sibling
from mmevm.zoo.download import download, is_offline
from mmevm.zoo.entries import Entry, find_entry
from mmevm.zoo.errors import FetchError
from mmevm.zoo.verify import BytesError, check_bytes, check_content


def fetch(name: str) -> Path:
    """Return the verified file of a zoo entry, downloaded if it is not in the cache.

    Every call compares the file with the hash that its authors published or, where they published none, with the one
    that was recorded when it was first verified. A file that differs is renamed and downloaded again.

    Args:
        name (str): A name of :data:`ENTRIES`, with or without ``mmevm://``.

    Returns:
        Path: The file in the cache.

    Raises:
        ValueError: If the zoo has no such name.
        FetchError: If it cannot be downloaded: offline, no such file, no space, no permission.
        CheckpointError: If the downloaded file is not what the entry says.
    """
    entry = find_entry(name)
    path = cached_path(entry)
    # Without the lock first: an intact file in a read-only folder is good enough.
    if path.is_file() and _fault(path, entry) is None:
        return path
    try:
        with locked(path):
            if path.is_file():
                fault = _fault(path, entry)
                if fault is None:
                    return path
                _warn(f'{fault}. It is kept aside as {set_aside(path, path.name)}')
            _download_verified(entry, path)
    except FetchError:
        raise
    except OSError as error:
        raise FetchError(
            f'The cache {path.parent} cannot be used: {error}. Make it writable, or set MMEVM_CACHE to another folder'
        ) from error
    return path


def _expected(entry: Entry, path: Path) -> dict[str, str]:
    hashes = {'published by its authors': entry.sha256, f'recorded in {sibling(path, "json")}': recorded_hash(path)}
    return {origin: value for origin, value in hashes.items() if value}


def _fault(path: Path, entry: Entry) -> CheckpointError | None:
    """Return what is wrong with a file in the cache. A new file is verified in full, and its hash recorded."""
    expected = _expected(entry, path)
    try:
        sha256 = check_bytes(path, entry, expected)
        if not expected:
            check_content(path, entry)
    except CheckpointError as error:
        return error
    if not expected:
        try:
            record_hash(path, sha256, entry)
        except OSError as error:
            _warn(f'The hash of {path} cannot be recorded: {error}')
    return None


def _download_verified(entry: Entry, path: Path) -> None:
    """Download to a temporary file, verify it, record its hash, and only then rename it to ``path``."""
    if is_offline():
        raise FetchError(
            f'{entry.name} is not in the cache, and downloads are switched off (MMEVM_OFFLINE or '
            f'HF_HUB_OFFLINE). {_by_hand(entry, path)}'
        )
    part = sibling(path, 'incomplete')
    for last in (False, True):
        try:
            published = download(entry, part)
        except FetchError as error:
            raise FetchError(f'{error}.\n{_by_hand(entry, path)}') from error
        expected = _expected(entry, path) | ({'published by the hub': published} if published else {})
        try:
            sha256 = check_bytes(part, entry, expected)
            check_content(part, entry)
        except CheckpointError as error:
            fault = f'{error}\nThe download is kept aside as {set_aside(part, path.name)}'
            if last or not isinstance(error, BytesError):
                raise CheckpointError(
                    f'{entry.url} is not what the zoo expects: {fault}\n{_if_replaced(path)}'
                ) from error
            _warn(f'{fault}; downloading it again')
            continue
        record_hash(path, sha256, entry)
        os.replace(part, path)
        return


def _by_hand(entry: Entry, path: Path) -> str:
    return f'Download\n  {entry.url}\non another machine and put the file at\n  {path}'


def _if_replaced(path: Path) -> str:
    if recorded_hash(path) is None:
        return 'The cache is unchanged.'
    return f'If its authors have replaced the file and you trust the new one, delete {sibling(path, "json")}.'


def _warn(message: str) -> None:
    print_log(message, logger='current', level=logging.WARNING)
