"""Shared by the tests of `mmevm.engine`."""

import copy
import functools
from pathlib import Path

import pytest
from mmengine.config import Config

from mmevm.engine.config import read_config

ROOT = Path(__file__).resolve().parents[2]


@functools.cache
def _read(name: str) -> Config:
    return read_config(ROOT / f'configs/{name}.py')


def our_config(name: str) -> Config:
    """A config of ours, to be changed; each is read once."""
    return copy.deepcopy(_read(name))


@pytest.fixture
def notes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is printed instead of refused."""
    lines: list[str] = []
    monkeypatch.setattr('mmevm.engine.checks.classes.print_log', lambda line, **_: lines.append(line))
    return lines
