"""`demo.fashion`: the files of a Debian package, installed or downloaded, are checked and unpacked."""

import subprocess
from pathlib import Path

import pytest

from demo import fashion

from .sources import write_fashion


def test_an_installed_package_is_unpacked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_fashion(tmp_path / 'installed', monkeypatch)
    assert fashion.make_fashion(tmp_path / 'data') and not fashion.make_fashion(tmp_path / 'data')
    assert fashion.read_labels(tmp_path / 'data', 'train').tolist() == [1, 1, 1, 1, 0, 2, 3, 4]
    images = fashion.read_images(tmp_path / 'data')
    assert images.shape == (4, 28, 28) and images.std() > 50


def test_a_package_that_is_not_installed_is_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_fashion(tmp_path / 'source', monkeypatch)
    monkeypatch.setattr(fashion, 'INSTALLED', Path('/no/such/folder'))
    commands = []

    def run(command: list[str], cwd: str, check: bool) -> None:
        commands.append(command)
        if command[0] == 'apt-get':
            Path(cwd, 'package.deb').touch()
        else:
            Path(cwd, 'no/such').mkdir(parents=True)
            Path(cwd, 'no/such/folder').symlink_to(tmp_path / 'source')

    monkeypatch.setattr(subprocess, 'run', run)
    assert fashion.make_fashion(tmp_path / 'data')
    assert commands == [['apt-get', 'download', '-q', fashion.PACKAGE], ['dpkg-deb', '-x', 'package.deb', '.']]
    assert len(fashion.read_images(tmp_path / 'data')) == 4


def test_without_a_network_the_message_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fashion, 'INSTALLED', tmp_path / 'none')

    def fail(*args: object, **kwargs: object) -> None:
        raise FileNotFoundError('apt-get')

    monkeypatch.setattr(subprocess, 'run', fail)
    with pytest.raises(SystemExit, match=r'could not download it: apt-get\. Install it .*put t10k-images'):
        fashion.make_fashion(tmp_path / 'data')


def test_other_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_fashion(tmp_path / 'installed', monkeypatch)
    (tmp_path / 'installed' / next(iter(fashion.FILES))).write_bytes(b'other')
    with pytest.raises(SystemExit, match='expected SHA-256'):
        fashion.make_fashion(tmp_path / 'data')
    assert not (tmp_path / 'data').exists()
