"""Upstream's checkpoints in the configs' models: every tensor finds its parameter, and failures are explained."""

import argparse
import functools
from collections import Counter
from hashlib import sha256
from pathlib import Path

import pytest
import torch
from mmengine.registry import MODELS
from torch import Tensor, nn

from mmevm.checkpoint import CheckpointError, fit_checkpoint, load_checkpoint
from mmevm.engine.tasks import build_model

from .parity import Fixture
from .test_configs import load, shell

pytestmark = pytest.mark.openmmlab

FIXTURES = {'tiny': 'evm_tiny_64x64', 'small': 'evm_small_64x96', 'base': 'evm_base_64x64'}


@functools.cache
def upstream_state(arch: str) -> dict[str, Tensor]:
    return Fixture(FIXTURES[arch]).state(outnorm=False)


def upstream_file(arch: str, folder: Path) -> Path:
    """A file in the form in which upstream released its weights, with other numbers."""
    path = folder / f'efficient_vmamba_{arch}.ckpt'
    torch.save({'state_dict': {f'module.module.{k}': value for k, value in upstream_state(arch).items()}}, path)
    return path


def contents(state: dict[str, Tensor]) -> Counter:
    """Shape and values of every tensor, whatever its name."""
    return Counter((tuple(t.shape), sha256(t.numpy().tobytes()).hexdigest()) for t in state.values())


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The zoo's folder, empty, without a network."""
    monkeypatch.setenv('MMEVM_CACHE', str(tmp_path))
    monkeypatch.setenv('MMEVM_OFFLINE', '1')
    (tmp_path / 'zoo').mkdir()
    return tmp_path / 'zoo'


def build_backbone(name: str, **changes: object) -> nn.Module:
    """A config's backbone with random weights."""
    return MODELS.build(dict(load(name).model.backbone, **changes))


@pytest.mark.parametrize('name', ['upernet_evm_t', 'mask_rcnn_evm_s_1x', 'retinanet_evm_b'])
def test_pretrained_weights_reach_every_parameter_of_the_backbone(name: str, cache: Path) -> None:
    backbone = build_backbone(name)
    state = upstream_state(load(name).model.backbone.arch)
    upstream_file(load(name).model.backbone.arch, cache)
    backbone.init_weights()
    # An ImageNet classifier has its last norm where the backbone has its last output norm, and none of the others.
    fresh = {f'outnorm{i}.{leaf}' for i in range(3) for leaf in ('weight', 'bias')}
    loaded = {key: value for key, value in backbone.state_dict().items() if key not in fresh}
    expected = {key: value for key, value in state.items() if 'classifier.head' not in key}
    assert len(state) - len(expected) == 2
    assert contents(loaded) == contents(expected)


def test_unavailable_pretrained_weights_are_explained(cache: Path) -> None:
    with pytest.raises(CheckpointError) as caught:
        build_backbone('upernet_evm_t').init_weights()
    message = str(caught.value)
    assert 'mmevm://efficient_vmamba_tiny' in message
    assert f'{cache}/efficient_vmamba_tiny.ckpt' in message
    assert '--cfg-options model.backbone.init_cfg=None' in message
    assert '--cfg-options model.backbone.init_cfg.checkpoint=' in message


def test_unreachable_address_and_missing_file_are_named(tmp_path: Path) -> None:
    for source in ('http://127.0.0.1:9/efficient_vmamba_tiny.ckpt', str(tmp_path / 'none.ckpt')):
        backbone = build_backbone('upernet_evm_t', init_cfg=dict(type='Pretrained', checkpoint=source))
        with pytest.raises(CheckpointError) as caught:
            backbone.init_weights()
        assert source in str(caught.value)


Shapes = dict[str, tuple[int, ...]]


def shapes_of(fixture: str) -> Shapes:
    return {key: tuple(shape) for key, shape in Fixture(fixture).meta['manifest'].items()}


def deepened(shapes: Shapes, depth: int) -> Shapes:
    """Names and shapes of a variant whose third stage has another depth: its first block, so many times."""
    start = 'layers.2.blocks.'
    first = {key: shape for key, shape in shapes.items() if key.startswith(f'{start}0.')}
    others = {key: shape for key, shape in shapes.items() if not key.startswith(start)}
    return others | {key.replace('.0.', f'.{i}.', 1): shape for i in range(depth) for key, shape in first.items()}


def widened(shapes: Shapes) -> Shapes:
    """Names and shapes of a variant that is a third wider: of 128 channels, not 96."""
    wide = {key: tuple(n * 4 // 3 if n > 3 and n % 3 == 0 else n for n in shape) for key, shape in shapes.items()}
    for key, shape in shapes.items():
        if key.endswith('x_proj_weight'):  # B and C of every state beside the time step's rank
            states = 2 * shapes[key.replace('x_proj_weight', 'A_logs')][1]
            wide[key] = shape[0], (shape[1] - states) * 4 // 3 + states, shape[2] * 4 // 3
    return wide


V0, S1L8, S2L15 = 'vmamba_v0_tiny_64x64', 'vmamba_tiny_s1l8_64x96', 'vmamba_small_s2l15_64x64'
# Where no fixture has a variant's names and shapes, they follow from those of another.
CLASSIFIERS = {
    'classifier_evm_t': lambda: shapes_of('evm_tiny_64x64'),
    'classifier_evm_s': lambda: shapes_of('evm_small_64x96'),
    'classifier_evm_b': lambda: shapes_of('evm_base_64x64'),
    'classifier_vmamba_t': lambda: shapes_of(V0),
    'classifier_vmamba_s': lambda: deepened(shapes_of(V0), 27),
    'classifier_vmamba_b': lambda: widened(deepened(shapes_of(V0), 27)),
    'classifier_vmamba_t_s1l8': lambda: shapes_of(S1L8),
    'classifier_vmamba_t_s2l5': lambda: deepened(shapes_of(S2L15), 5),
    'classifier_vmamba_s_s2l15': lambda: shapes_of(S2L15),
    'classifier_vmamba_s_s1l20': lambda: deepened(shapes_of(S1L8), 20),
    'classifier_vmamba_b_s2l15': lambda: shapes_of('vmamba_base_s2l15_64x64'),
    'classifier_vmamba_b_s1l20': lambda: widened(deepened(shapes_of(S1L8), 20)),
    'classifier_vim_t': lambda: shapes_of('vim_tiny_64x64') | {'pos_embed': (1, 14 * 14 + 1, 192)},
    'classifier_vim_s': lambda: shapes_of('vim_small_96x96') | {'pos_embed': (1, 14 * 14 + 1, 384)},
    'classifier_vim_t_stride8': lambda: shapes_of('vim_tiny_64x64') | {'pos_embed': (1, 27 * 27 + 1, 192)},
    'classifier_vim_s_stride8': lambda: shapes_of('vim_small_96x96') | {'pos_embed': (1, 27 * 27 + 1, 384)},
}


def on_meta(shapes: Shapes) -> dict[str, Tensor]:
    return {key: torch.empty(shape, device='meta') for key, shape in shapes.items() if not key.startswith('outnorm')}


@pytest.mark.parametrize('name', CLASSIFIERS)
def test_every_tensor_of_upstreams_file_fits_the_classifier(name: str) -> None:
    state = on_meta(CLASSIFIERS[name]())
    report = fit_checkpoint(shell(name), {'model': state})[1]
    assert report.fresh == report.dropped == report.adapted == report.resampled == []
    assert len(report.loaded) == len(state)


@pytest.mark.parametrize(
    'name, fixture', [('classifier_vmamba_t', V0), ('classifier_vmamba_t_s1l8', S1L8), ('classifier_vim_t', None)]
)
def test_classifier_gives_upstreams_logits(name: str, fixture: str | None, tmp_path: Path) -> None:
    fixture = Fixture(fixture or 'vim_tiny_64x64')
    state, cfg = fixture.state(outnorm=False), load(name)
    torch.save({'model': state, 'args': argparse.Namespace(epoch=292)}, tmp_path / 'upstream.pth')
    if 'vim' in name:
        cfg.model.backbone.img_size = fixture.meta['input_shape'][2]
    model = build_model(cfg).eval()
    load_checkpoint(model, tmp_path / 'upstream.pth')
    own = {key: value for key, value in model.state_dict().items() if key != 'backbone.pos_grid'}
    assert contents(own) == contents(state)
    with torch.no_grad():
        logits = model(fixture.images())
    torch.testing.assert_close(logits, fixture.tensor('logits'), rtol=0, atol=2e-4)


@pytest.mark.parametrize('name', ['vmamba_t', 'vmamba_s', 'vmamba_b', 'vim_t', 'vim_s'])
def test_upstreams_classifier_fits_the_backbone_of_a_segmentor(name: str) -> None:
    source = {'vmamba_t': '_s1l8', 'vmamba_s': '_s2l15', 'vmamba_b': '_s2l15'}.get(name, '')
    state = on_meta(CLASSIFIERS[f'classifier_{name}{source}']())
    report = fit_checkpoint(shell(f'upernet_{name}').backbone, {'model': state})[1]
    if 'vim' in name:
        assert report.resampled == ['pos_embed'] and report.fresh == []
    else:
        assert report.fresh == [f'outnorm{i}.{leaf}' for i in range(3) for leaf in ('weight', 'bias')]
    assert len(report.loaded) == len(state) - 2 and len(report.dropped) == 2  # the head


def test_vims_segmentor_has_the_parameters_of_upstreams() -> None:
    cfg = load('upernet_vim_t')
    cfg.model.backbone.img_size = 1024
    count = sum(p.numel() for p in build_model(cfg, 'meta').parameters())
    # As upstream prints its own, which has no class token, nor a position for it.
    assert count == 12_901_100 + 2 * 192


def test_tuning_at_stride_8_starts_from_the_classifier_of_stride_16() -> None:
    state = Fixture('vim_tiny_64x64').state(outnorm=False)
    rows = torch.arange(14.0).repeat_interleave(14)
    rows = torch.cat([rows[:98], torch.tensor([50.0]), rows[98:]])  # the class token's position is in the middle
    state['pos_embed'] = rows[None, :, None].expand(1, 197, 192)
    model = build_model(load('classifier_vim_t_stride8'))
    report = load_checkpoint(model, {'model': state})
    assert (report.fresh, report.dropped, report.resampled) == ([], [], ['backbone.pos_embed'])
    positions = model.backbone.pos_embed.detach()
    assert positions.shape == (1, 27 * 27 + 1, 192)
    assert (positions[0, 27 * 27 // 2] == 50).all()
    # The middle one of 27 rows is between the seventh and the eighth of 14.
    torch.testing.assert_close(positions[0, 13 * 27 : 13 * 27 + 13], torch.full((13, 192), 6.5))
    assert torch.equal(model.head.fc.weight, state['head.weight'])
