"""Upstream's checkpoints through the configs' `init_cfg`: every tensor finds its place, and what is missing is said."""

from collections import Counter
from functools import cache
from hashlib import sha256
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from torch import Tensor

from mmevm.checkpoint import CheckpointError
from mmevm.engine.tasks import build_model

from .parity import Fixture
from .test_configs import NAMES, load

pytestmark = pytest.mark.openmmlab

FIXTURES = {'tiny': 'evm_tiny_64x64', 'small': 'evm_small_64x96', 'base': 'evm_base_64x64'}
DENSE = [name for name in NAMES if '_evm_' in name and not name.startswith(('classifier', 'demo'))]


@cache
def upstream_state(arch: str) -> dict[str, Tensor]:
    return Fixture(FIXTURES[arch]).state(outnorm=False)


def upstream_file(arch: str, folder: Path) -> Path:
    """A file in the form in which upstream released its weights, with other numbers."""
    path = folder / f'efficient_vmamba_{arch}.ckpt'
    torch.save({'state_dict': {f'module.module.{k}': value for k, value in upstream_state(arch).items()}}, path)
    return path


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The zoo's folder, empty, without a network."""
    monkeypatch.setenv('MMEVM_CACHE', str(tmp_path))
    monkeypatch.setenv('MMEVM_OFFLINE', '1')
    (tmp_path / 'zoo').mkdir()
    return tmp_path / 'zoo'


def contents(state: dict[str, Tensor]) -> Counter:
    """Shape and values of every tensor, whatever its name."""
    return Counter((tuple(t.shape), sha256(t.numpy().tobytes()).hexdigest()) for t in state.values())


@pytest.mark.parametrize('name', DENSE)
def test_config_asks_for_upstreams_weights_of_its_variant(name: str) -> None:
    backbone = load(name).model.backbone
    assert backbone.init_cfg == dict(type='Pretrained', checkpoint=f'mmevm://efficient_vmamba_{backbone.arch}')


@pytest.mark.parametrize(
    'name',
    [
        name
        for name in DENSE
        if name.startswith(('retinanet', 'mask', 'upernet_evm_t')) and not name.endswith(('_3x', '_640'))
    ],
)
def test_pretrained_weights_reach_every_parameter_of_the_backbone(name: str, cache: Path) -> None:
    cfg = load(name)
    state = upstream_state(cfg.model.backbone.arch)
    upstream_file(cfg.model.backbone.arch, cache)
    model = build_model(cfg)
    model.backbone.init_weights()
    # An ImageNet classifier has its last norm where the backbone has its last output norm, and none of the others.
    fresh = {f'outnorm{i}.{leaf}' for i in range(3) for leaf in ('weight', 'bias')}
    loaded = {key: value for key, value in model.backbone.state_dict().items() if key not in fresh}
    expected = {key: value for key, value in state.items() if 'classifier.head' not in key}
    assert len(state) - len(expected) == 2
    assert contents(loaded) == contents(expected)


def test_pretrained_weights_that_cannot_be_had_are_explained(cache: Path) -> None:
    model = build_model(load('upernet_evm_t'))
    with pytest.raises(CheckpointError) as caught:
        model.init_weights()
    message = str(caught.value)
    assert 'mmevm://efficient_vmamba_tiny cannot be had' in message
    assert f'put the file at\n  {cache}/efficient_vmamba_tiny.ckpt' in message
    assert '--cfg-options model.backbone.init_cfg=None' in message
    assert '--cfg-options model.backbone.init_cfg.checkpoint=' in message


def test_address_that_cannot_be_reached_is_explained() -> None:
    cfg = load('upernet_evm_t')
    cfg.model.backbone.init_cfg.checkpoint = 'http://127.0.0.1:9/efficient_vmamba_tiny.ckpt'
    with pytest.raises(CheckpointError, match=r'http://127\.0\.0\.1:9/efficient_vmamba_tiny\.ckpt cannot be had'):
        build_model(cfg).init_weights()


def test_missing_pretrained_file_is_explained(tmp_path: Path) -> None:
    cfg: Config = load('retinanet_evm_t')
    cfg.model.backbone.init_cfg.checkpoint = str(tmp_path / 'none.ckpt')
    with pytest.raises(CheckpointError, match=r'none\.ckpt cannot be had: Checkpoint not found'):
        build_model(cfg).init_weights()
