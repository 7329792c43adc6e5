"""Atomic writes, and messages for files that cannot be written."""

import errno
import os
from pathlib import Path

import pytest
from mmengine import fileio
from mmengine.fileio import LocalBackend, register_backend

from mmevm.engine.runner import storage
from mmevm.engine.runner.storage import register_durable_backend, remove_drafts, write_file
from mmevm.errors import UsageError, exit_status, size

FAULTS = {
    errno.ENOSPC: r'the disk is full\. The file takes 3 MB and 2 MB are free: 1 MB are missing\.',
    errno.EDQUOT: r'the disk quota is used up\. The file takes 3 MB\.',
    errno.EFBIG: r'the file would exceed the file size limit \(ulimit -f\)\. The file takes 3 MB\.',
    errno.EROFS: r'the file system is read-only\.',
    errno.EACCES: r'permission denied\.',
}


def failing(number: int) -> callable:
    """A function of the system that fails."""

    def fail(*args: object) -> None:
        raise OSError(number, os.strerror(number))

    return fail


@pytest.mark.parametrize('number', FAULTS, ids=errno.errorcode.get)
def test_write_file_keeps_what_was_there_and_says_what_is_missing(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_file(tmp_path / 'file', b'old')
    monkeypatch.setattr(storage.os, 'fsync', failing(number))
    monkeypatch.setattr('mmevm.errors.free_space', lambda path: 2_000_000)
    with pytest.raises(UsageError, match=f'Cannot write {tmp_path}/file: {FAULTS[number]}'):
        write_file(tmp_path / 'file', bytes(3_000_000))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {'file': b'old'}


def test_write_file_leaves_other_errors_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage.os, 'fsync', failing(errno.EIO))
    with pytest.raises(OSError, match='Input/output error'):
        write_file(tmp_path / 'file', b'')


def test_write_file_makes_the_folder(tmp_path: Path) -> None:
    write_file(tmp_path / 'a/b', b'new')
    assert (tmp_path / 'a/b').read_bytes() == b'new'


def test_remove_drafts_takes_what_killed_processes_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage.Path, 'unlink', lambda *args, **kwargs: None)
    monkeypatch.setattr(storage.os, 'replace', failing(errno.EROFS))
    with pytest.raises(UsageError):
        write_file(tmp_path / 'epoch_1.pth', b'')
    monkeypatch.undo()
    (tmp_path / '.other').write_text('')
    assert len(os.listdir(tmp_path)) == 2
    remove_drafts(tmp_path)
    assert os.listdir(tmp_path) == ['.other']


def test_mmengine_writes_through_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fileio.put_text('old', tmp_path / 'file')
    try:
        register_durable_backend()
        monkeypatch.setattr(storage.os, 'fsync', failing(errno.ENOSPC))
        for put, content in ((fileio.put, b'new'), (fileio.put_text, 'new')):
            with pytest.raises(UsageError):
                put(content, tmp_path / 'file')
    finally:
        register_backend('local', LocalBackend, force=True, prefixes='')
    assert (tmp_path / 'file').read_text() == 'old'


def test_tools_say_where_the_disk_is_full(capsys: pytest.CaptureFixture) -> None:
    def run() -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), '/data/x')

    assert exit_status(run) == 2
    assert capsys.readouterr().err == '\nCannot write /data/x: the disk is full.\n'


def test_tools_say_what_they_may_not_open(capsys: pytest.CaptureFixture) -> None:
    def run() -> None:
        raise OSError(errno.EACCES, os.strerror(errno.EACCES), '/data/x')

    assert exit_status(run) == 2
    assert capsys.readouterr().err == '\nPermission denied: /data/x\n'


def test_tools_leave_other_errors_of_the_system_as_they_are() -> None:
    with pytest.raises(FileNotFoundError):
        exit_status(lambda: open('/no/such/file'))


@pytest.mark.parametrize(
    ('count', 'text'),
    [(0, '0 bytes'), (999, '999 bytes'), (1500, '1.5 kB'), (104_572_866, '104.6 MB'), (2.5e9, '2.5 GB')],
)
def test_sizes_are_read_in_their_unit(count: float, text: str) -> None:
    assert size(count) == text
