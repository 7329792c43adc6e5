"""A checkpoint by name: from the cache if it is sound there, otherwise from the network; never without verification."""

import logging
import os
from pathlib import Path

from mmengine.logging import print_log

from mmevm.checkpoint.weights_only import CheckpointError
from mmevm.zoo.cache import beside, cached_path, locked, record_hash, recorded_hash, set_aside
from mmevm.zoo.download import download, is_offline
from mmevm.zoo.entries import Entry, find_entry
from mmevm.zoo.errors import FetchError
from mmevm.zoo.verify import BytesError, check_bytes, check_content


def fetch(name: str) -> Path:
    """The verified file of a zoo entry, downloaded if the cache has none.

    Every call compares the file with the hash that its authors published or, where they published none, with the one
    that was recorded when it was first verified. A file that differs is kept aside under another name, and fetched
    again.

    Args:
        name (str): A name of :data:`ENTRIES`, with or without ``mmevm://``.

    Returns:
        Path: The file in the cache.

    Raises:
        ValueError: If the zoo has no such name.
        FetchError: If the file cannot be had: offline, no such file, no room, no permission.
        CheckpointError: If what was downloaded is not what the entry says.
    """
    entry = find_entry(name)
    path = cached_path(entry)
    # Without the lock first: a sound file in a folder that cannot be written is good enough.
    if path.is_file() and _fault(path, entry) is None:
        return path
    try:
        with locked(path):
            if path.is_file():
                fault = _fault(path, entry)
                if fault is None:
                    return path
                _say(f'{fault}. It is kept aside as {set_aside(path, path.name)}')
            _fetch_anew(entry, path)
    except FetchError:
        raise
    except OSError as error:
        raise FetchError(
            f'The cache {path.parent} cannot be used: {error}. Make it writable, or name another folder by MMEVM_CACHE'
        ) from error
    return path


def _expected(entry: Entry, path: Path) -> dict[str, str]:
    hashes = {'published by its authors': entry.sha256, f'recorded in {beside(path, "json")}': recorded_hash(path)}
    return {origin: value for origin, value in hashes.items() if value}


def _fault(path: Path, entry: Entry) -> CheckpointError | None:
    """What is wrong with a file in the cache. One put there by hand is verified in full, and its hash recorded."""
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
            _say(f'The hash of {path} cannot be recorded: {error}')
    return None


def _fetch_anew(entry: Entry, path: Path) -> None:
    """Downloads beside ``path``, verifies, records the hash, and only then gives the file its name."""
    if is_offline():
        raise FetchError(
            f'{entry.name} is not in the cache, and downloads are switched off (MMEVM_OFFLINE or '
            f'HF_HUB_OFFLINE). {_by_hand(entry, path)}'
        )
    part = beside(path, 'incomplete')
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
            fault = f'{error}\nWhat was downloaded is kept aside as {set_aside(part, path.name)}'
            if last or not isinstance(error, BytesError):
                raise CheckpointError(
                    f'{entry.url} is not what the zoo expects: {fault}\n{_if_replaced(path)}'
                ) from error
            _say(f'{fault}; fetching it again')
            continue
        record_hash(path, sha256, entry)
        os.replace(part, path)
        return


def _by_hand(entry: Entry, path: Path) -> str:
    return f'Fetch\n  {entry.url}\non another machine and put the file at\n  {path}'


def _if_replaced(path: Path) -> str:
    if recorded_hash(path) is None:
        return 'Nothing was put into the cache.'
    return f'If its authors have replaced the file and you trust the new one, delete {beside(path, "json")}.'


def _say(message: str) -> None:
    print_log(message, logger='current', level=logging.WARNING)
