import argparse

import pytest
import torch
from mmengine.runner import CheckpointLoader
from mmengine.runner import load_checkpoint as mmengine_load
from torch import Tensor

from mmevm import zoo
from mmevm.backbones import EfficientVMamba
from mmevm.checkpoint import CheckpointError, formats

from ..parity import Fixture
from .conftest import EVM, OTHER, move_entry, pack
from .server import Server

NAME = f'mmevm://{EVM}'


def assert_loaded(backbone: torch.nn.Module, state: dict[str, Tensor]) -> None:
    """Every parameter of the backbone is the checkpoint's, apart from what upstream's files lack."""
    expected = formats.convert(state)
    formats.promote_classifier_norm(expected, 'outnorm3')
    fresh = ('outnorm0', 'outnorm1', 'outnorm2', 'pos_grid')  # the last is the model's own
    own = {name: value for name, value in backbone.state_dict().items() if not name.startswith(fresh)}
    assert len(own) == len(expected) - 2
    for name, value in own.items():
        assert torch.equal(value, expected[name]), name


def test_load_gives_the_backbone(hub: str, evm_state: dict[str, Tensor]) -> None:
    model = zoo.load(EVM)
    assert not model.training
    assert_loaded(model, evm_state)


@pytest.mark.openmmlab
def test_load_gives_the_classifier_with_upstreams_logits(hub: str, evm_state: dict[str, Tensor]) -> None:
    pytest.importorskip('mmpretrain')
    fixture = Fixture('evm_tiny_64x64')
    model = zoo.load(EVM, task='classification')
    assert_loaded(model.backbone, evm_state)
    from ..data.parity.weights import make_input

    images = torch.from_numpy(make_input(fixture.meta['input_shape'], fixture.meta['input_seed']))
    with torch.no_grad():
        logits = model(images, mode='tensor')
    assert torch.allclose(logits, fixture.tensor('logits'), atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize('name', ['vim_tiny', 'vmamba_v0_tiny'])
def test_load_gives_the_other_backbones(name: str, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    state = Fixture(f'{name}_64x64').state(outnorm=False)
    if 'pos_embed' in state:
        state['pos_embed'] = torch.randn(1, 197, 192)  # of pictures of 224 x 224, as released
    move_entry(monkeypatch, name, f'{server.url}/file.pth', repo=None)
    server.files['/file.pth'] = pack({'model': state, 'args': argparse.Namespace(lr=1)})
    assert_loaded(zoo.load(name), state)


def test_load_refuses_tasks_without_weights(server: Server, hub: str) -> None:
    with pytest.raises(ValueError, match="None or 'classification' .* got 'detection': no such weights were released"):
        zoo.load(EVM, task='detection')
    assert server.requests == []


def test_load_says_that_there_is_no_such_backbone_yet(server: Server, site: str) -> None:
    with pytest.raises(NotImplementedError, match='mmevm has no MambaVision backbone yet'):
        zoo.load(OTHER)


def test_init_cfg_loads_by_name(hub: str, evm_state: dict[str, Tensor]) -> None:
    model = EfficientVMamba('tiny', init_cfg=dict(type='Pretrained', checkpoint=NAME))
    model.init_weights()
    assert_loaded(model, evm_state)


def test_init_cfg_refuses_another_variant(hub: str) -> None:
    model = EfficientVMamba('small', init_cfg=dict(type='Pretrained', checkpoint=NAME))
    with pytest.raises(CheckpointError, match="it is the variant 'tiny'"):
        model.init_weights()


def test_init_cfg_offline_says_what_to_do(hub: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('MMEVM_OFFLINE', '1')
    model = EfficientVMamba('tiny', init_cfg=dict(type='Pretrained', checkpoint=NAME))
    with pytest.raises(CheckpointError, match=r'put the file at(.|\n)*model\.backbone\.init_cfg=None'):
        model.init_weights()


@pytest.mark.openmmlab
def test_mmengines_loader_knows_the_prefix_for_every_kind_of_model(hub: str, evm_state: dict[str, Tensor]) -> None:
    backbone = EfficientVMamba('tiny')
    mmengine_load(backbone, NAME)
    assert_loaded(backbone, evm_state)
    whole = torch.nn.Module()
    whole.backbone = EfficientVMamba('tiny')
    whole.head = torch.nn.Module()
    whole.head.fc = torch.nn.Linear(384, 1000)
    mmengine_load(whole, NAME)
    assert_loaded(whole.backbone, evm_state)
    assert torch.equal(whole.head.fc.weight, evm_state['classifier.head.weight'])


@pytest.mark.openmmlab
def test_mmengines_loader_keeps_the_names_of_other_architectures(site: str) -> None:
    content = CheckpointLoader.load_checkpoint(f'mmevm://{OTHER}')
    assert set(content) == {'model', 'epoch', 'args'} and len(content['model']) == 4


@pytest.mark.openmmlab
def test_mmengines_loader_leaves_out_the_config_that_resuming_would_execute(site: str, server: Server) -> None:
    server.files[site] = pack({'model': {'w': torch.zeros(1)}, 'meta': {'config': 'raise SystemExit', 'epoch': 3}})
    assert CheckpointLoader.load_checkpoint(f'mmevm://{OTHER}')['meta'] == {'epoch': 3}
