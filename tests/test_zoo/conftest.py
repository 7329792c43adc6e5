"""Shared by the zoo's tests: a loopback server, an empty cache, files in upstream's formats."""

import argparse
import dataclasses
import io
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.runner import CheckpointLoader, Runner

from mmevm.zoo import ENTRIES, Entry

from ..parity import Fixture
from ..test_tools.small_classifier import FROZEN, write_config, write_pictures
from .server import Server

EVM = 'efficient_vmamba_tiny'
OTHER = 'other'


def pack(content: Any, legacy: bool = False) -> bytes:
    """What ``torch.save`` writes."""
    stream = io.BytesIO()
    torch.save(content, stream, _use_new_zipfile_serialization=not legacy)
    return stream.getvalue()


class Malice:
    """Pickles as a command that leaves a file behind when it is run."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple:
        return os.system, (f'touch {self.trace}',)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and none of the user's settings."""
    for name in ('MMEVM_OFFLINE', 'HF_HUB_OFFLINE', 'HF_TOKEN', 'HF_ENDPOINT'):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv('NO_PROXY', '127.0.0.1')
    monkeypatch.setenv('MMEVM_CACHE', str(tmp_path / 'cache'))
    return tmp_path / 'cache' / 'zoo'


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that were to be waited between attempts; nobody waits."""
    seconds: list[float] = []
    monkeypatch.setattr(time, 'sleep', seconds.append)
    return seconds


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.stop()


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    """The file that exists once the command of :class:`Malice` has been run."""
    return tmp_path / 'ran'


@pytest.fixture
def tools_in_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Puts MMEngine's loaders back, which the tools replace in their process; saves the seconds that logs take."""
    monkeypatch.setattr(Config, 'pretty_text', '')
    monkeypatch.setattr(Runner, '_log_env', lambda *_: None)
    schemes = CheckpointLoader._schemes.copy()
    yield
    CheckpointLoader._schemes = schemes


@pytest.fixture(scope='session')
def config(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The tiny classifier's config for twelve pictures."""
    pytest.importorskip('mmpretrain')
    folder = tmp_path_factory.mktemp('classifier')
    return str(write_config(folder / 'config.py', write_pictures(folder / 'data'), FROZEN))


@pytest.fixture(scope='session')
def evm_state() -> dict[str, torch.Tensor]:
    """Weights of the tiny classifier in upstream's spelling."""
    return Fixture('evm_tiny_64x64').state(outnorm=False)


@pytest.fixture(scope='session')
def evm_file(evm_state: dict[str, torch.Tensor]) -> bytes:
    """The tiny classifier as upstream released it, with other numbers."""
    return pack({'state_dict': {f'module.module.{name}': value for name, value in evm_state.items()}})


@pytest.fixture(scope='session')
def other_file() -> bytes:
    """A smaller file of a network that mmevm does not have, in VMamba's form: the run's settings beside the weights."""
    weights = {f'layers.{i}.weight': torch.arange(600_000.0) + i for i in range(4)}
    return pack({'model': weights, 'epoch': 264, 'args': argparse.Namespace(lr=1e-3)})


@pytest.fixture
def hub(server: Server, monkeypatch: pytest.MonkeyPatch, evm_file: bytes) -> str:
    """The server as the hub, with the tiny classifier; the path of its file there."""
    template = server.url + '/{repo_id}/resolve/{revision}/{filename}'
    monkeypatch.setattr('huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE', template)
    path = ENTRIES[EVM].url.removeprefix('https://huggingface.co')
    server.files[path] = evm_file
    return path


@pytest.fixture
def site(server: Server, monkeypatch: pytest.MonkeyPatch, other_file: bytes) -> str:
    """The server as an ordinary one, with the small file and an entry for it; the path of it there."""
    path = '/releases/%23v2cls/other.pth'
    entry = dataclasses.replace(ENTRIES['vmamba_v2_tiny_s1l8'], name=OTHER, architecture='MambaVision')
    monkeypatch.setitem(ENTRIES, OTHER, entry)
    move_entry(monkeypatch, OTHER, server.url + path)
    server.files[path] = other_file
    return path


def move_entry(monkeypatch: pytest.MonkeyPatch, name: str, url: str, **changes: Any) -> Entry:
    """Lets an entry point to another address."""
    entry = dataclasses.replace(ENTRIES[name], url=url, **changes)
    monkeypatch.setitem(ENTRIES, name, entry)
    return entry
