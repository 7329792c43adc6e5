"""Downloads with resuming, by huggingface_hub: from the hub and from ordinary addresses."""

import errno
import logging
import os
import re
import shutil
import time
from pathlib import Path
from typing import Any

from mmengine.logging import print_log

from mmevm._patches import frequent_writes
from mmevm.zoo.entries import Entry
from mmevm.zoo.errors import FetchError

_ATTEMPTS = 4
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_DENIED = (errno.EROFS, errno.EACCES, errno.EPERM)


def is_offline() -> bool:
    """Return whether ``MMEVM_OFFLINE`` or the hub's own ``HF_HUB_OFFLINE`` forbids downloads."""
    values = (os.environ.get(name, '').lower() for name in ('MMEVM_OFFLINE', 'HF_HUB_OFFLINE'))
    return any(value in ('1', 'true', 'yes', 'on') for value in values)


def download(entry: Entry, part: Path) -> str | None:
    """Download the file of ``entry`` to ``part``, continuing from what is already there.

    Broken connections and errors of an overloaded server are retried, each time after a longer wait; what has arrived
    stays in ``part`` for the next call.

    Returns:
        str, optional: The SHA-256 that the hub publishes for the file.

    Raises:
        FetchError: If the file cannot be downloaded, or ``part`` cannot be written.
    """
    try:
        from huggingface_hub.errors import HTTPError
    except ImportError as error:
        raise FetchError(
            f"Downloads need huggingface_hub 2.4 or newer ({error}): pip install -U 'huggingface_hub>=2.4', "
            "or install mmevm with its extra: 'mmevm[zoo]'"
        ) from error

    for attempt in range(_ATTEMPTS):
        try:
            return _transfer(entry, part)
        except (OSError, HTTPError) as error:  # the library's network errors are either
            _raise_if_final(error, entry, part)
            cause = error
        if attempt < _ATTEMPTS - 1:
            wait = 2**attempt
            print_log(
                f'{entry.url}: {_first_line(cause)}; retrying in {wait} s', logger='current', level=logging.WARNING
            )
            time.sleep(wait)
    raise FetchError(f'{entry.url} could not be downloaded in {_ATTEMPTS} attempts: {_first_line(cause)}') from cause


def _transfer(entry: Entry, part: Path) -> str | None:
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers

    url, headers, size, sha256 = entry.url, {}, None, None
    if entry.repo:
        url = hf_hub_url(entry.repo, entry.file)
        headers = dict(build_hf_headers(library_name='mmevm'))
        metadata = get_hf_file_metadata(url)
        size = metadata.size
        # The entity tag of a large file on the hub is its SHA-256; that of a small one is another, shorter hash.
        sha256 = metadata.etag if re.fullmatch('[0-9a-f]{64}', metadata.etag or '') else None
    done = part.stat().st_size if part.exists() else 0
    # A compressed stream cannot be resumed by position.
    headers['Accept-Encoding'] = 'identity'
    # http_get resumes broken transfers by itself; `download` retries connections that fail at once.
    with open(part, 'ab') as file, frequent_writes() as options:
        http_get(
            url,
            file,
            resume_size=done,
            headers=headers,
            expected_size=size,
            displayed_filename=entry.file,
            **options,
        )
    return sha256


def _raise_if_final(error: Any, entry: Entry, part: Path) -> None:
    """Raise errors that a retry cannot cure; remove a partial file that cannot be continued."""
    code = getattr(error, 'errno', None)
    if code in _FULL:
        # Do not leave the disk full.
        part.unlink(missing_ok=True)
        free = shutil.disk_usage(part.parent).free
        need = f' of about {entry.size / 1e6:.1f} MB' if entry.size else ''
        raise FetchError(
            f'No room for {entry.file}{need} in {part.parent}: {error.strerror} ({free / 1e6:.1f} MB are '
            'free). Free some, or set MMEVM_CACHE to another folder'
        ) from error
    if code in _DENIED:
        raise FetchError(
            f'The cache {part.parent} cannot be written: {error.strerror}. Make it writable, or set '
            'MMEVM_CACHE to another folder'
        ) from error
    status = getattr(getattr(error, 'response', None), 'status_code', None)
    if status == 416 or 'Consistency check failed' in str(error):  # longer than the file on the server now
        part.unlink(missing_ok=True)
    elif status is not None and 400 <= status < 500 and status not in (408, 429):
        raise FetchError(f'{entry.url} answers {status}: the file was moved, removed or closed') from error


def _first_line(error: BaseException) -> str:
    return f'{type(error).__name__}: {error}'.splitlines()[0][:200]
