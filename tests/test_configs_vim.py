"""Vim's configs: upstream's recipes, upstream's files, and a classifier's training from end to end."""

import argparse
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.logging import MessageHub
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS

from demo.mini_data import make_mini_data
from mmevm.apis.evaluate import main as run_test
from mmevm.apis.train import main as run_train
from mmevm.checkpoint import fit_checkpoint, load_checkpoint, load_file
from mmevm.engine.tasks import build_model
from mmevm.zoo import ENTRIES

from .parity import Fixture
from .test_configs import BY_NAME, decays, load
from .test_configs_pretrained import contents

pytestmark = pytest.mark.openmmlab


@pytest.mark.parametrize(
    'name, decay, batch, drop_path',
    [
        ('classifier_vim_t', 0.1, 128, 0.0),
        ('classifier_vim_s', 0.05, 64, 0.05),
    ],
)
def test_classifier_config_follows_upstreams_script(name: str, decay: float, batch: int, drop_path: float) -> None:
    cfg = load(name)
    warm_up, cosine = cfg.param_scheduler
    optimizer = cfg.optim_wrapper.optimizer
    assert (optimizer.type, optimizer.lr, optimizer.weight_decay) == ('AdamW', 1e-3, decay)
    assert cfg.optim_wrapper.get('type', 'OptimWrapper') == 'OptimWrapper' and 'clip_grad' not in cfg.optim_wrapper
    assert optimizer.lr * warm_up.start_factor == pytest.approx(1e-6)
    assert (warm_up.end, cosine.begin, cosine.end, cosine.eta_min, cfg.train_cfg.max_epochs) == (5, 5, 300, 1e-5, 300)
    assert cfg.custom_hooks == [dict(type='EMAHook', momentum=4e-5, priority='ABOVE_NORMAL')]
    assert [(step.type, step.alpha) for step in cfg.model.train_cfg.augments] == [('Mixup', 0.8), ('CutMix', 1.0)]
    assert cfg.model.backbone.drop_path_rate == drop_path
    assert cfg.train_dataloader.batch_size == batch
    assert cfg.train_dataloader.sampler.type == 'RepeatAugSampler'


@pytest.mark.parametrize('size, arch, width', [('t', 'tiny', 192), ('s', 'small', 384)])
def test_config_of_stride_8_follows_upstreams_tuning(size: str, arch: str, width: int) -> None:
    cfg = load(f'classifier_vim_{size}_stride8')
    backbone, optimizer = cfg.model.backbone, cfg.optim_wrapper.optimizer
    assert (backbone.arch, backbone.patch_stride, backbone.drop_path_rate) == (arch, 8, 0.0)
    assert cfg.model.head.in_channels == width
    assert cfg.load_from == f'mmevm://vim_{arch}'
    # Rates for a batch of 512: 5e-6 of the optimizer, and a warm-up and a cosine that begin and end at 1e-5.
    assert cfg.train_dataloader.batch_size * 8 == 1024
    assert (optimizer.type, optimizer.lr, optimizer.weight_decay) == ('AdamW', 5e-6 * 1024 / 512, 1e-8)
    assert (cfg.param_scheduler, cfg.train_cfg.max_epochs) == (None, 30)
    assert cfg.custom_hooks == [dict(type='EMAHook', momentum=4e-5, priority='ABOVE_NORMAL')]
    assert cfg.train_dataloader.sampler.type == 'RepeatAugSampler'


@pytest.mark.parametrize(
    'name, decay',
    [
        ('classifier_vim_t', 0.1),
        ('classifier_vim_s', 0.05),
        ('classifier_vim_t_stride8', 1e-8),
    ],
)
def test_classifier_config_decays_what_upstream_decays(name: str, decay: float) -> None:
    got, model = decays(name), build_model(load(name), 'meta')
    flat = {key for key, p in model.named_parameters() if p.dim() == 1}
    assert len(flat) == 24 * 7 + 3  # two of D, of convolutions' and of steps' biases and a norm per block; the rest
    kept = flat | {'backbone.cls_token', 'backbone.pos_embed'}
    assert {got[key] for key in kept} == {0.0}
    assert {got[key] for key in got.keys() - kept} == {decay}


@pytest.mark.parametrize('arch', ['tiny', 'small'])
def test_upstreams_file_fills_the_classifier(arch: str, tmp_path: Path) -> None:
    fixture = Fixture({'tiny': 'vim_tiny_64x64', 'small': 'vim_small_96x96'}[arch])
    state = fixture.state(outnorm=False)
    torch.save({'model': state, 'args': argparse.Namespace(model='vim')}, tmp_path / 'vim.pth')
    cfg = load(f'classifier_vim_{arch[0]}')
    cfg.model.backbone.img_size = fixture.meta['input_shape'][2]
    model = build_model(cfg)
    report = load_checkpoint(model, tmp_path / 'vim.pth')
    assert report.fresh == report.dropped == report.resampled == []
    own = {name: value for name, value in model.state_dict().items() if name != 'backbone.pos_grid'}
    assert contents(own) == contents(state)
    with torch.no_grad():
        logits = model.eval()(fixture.images())
    torch.testing.assert_close(logits, fixture.tensor('logits'), rtol=0, atol=2e-4)


def cache_released_file(folder: Path) -> None:
    """Puts a file like the released one of stride 16, with other numbers, where the zoo looks for it."""
    state = Fixture('vim_tiny_64x64').state(outnorm=False) | {'pos_embed': torch.zeros(1, 14 * 14 + 1, 192)}
    path = folder / 'zoo' / ENTRIES['vim_tiny'].file
    path.parent.mkdir(parents=True)
    torch.save({'model': state}, path)


@pytest.mark.parametrize('name', ['classifier_vim_t', 'classifier_vim_t_stride8'])
def test_classifier_trains_and_is_evaluated_on_miniature_data(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('MMEVM_CACHE', str(tmp_path / 'cache'))
    monkeypatch.setenv('MMEVM_OFFLINE', '1')
    cache_released_file(tmp_path / 'cache')
    make_mini_data('mini', image_size=96, train_images=2, val_images=2)
    phases = ('train', 'val', 'test')
    train, val, test = (f'{phase}_dataloader.dataset.pipeline' for phase in phases)
    changes = [
        'data_root=mini/imagenet',
        'train_dataloader.batch_size=2',
        f'{train}.1.scale=64',
        f'{val}.1.scale=64',
        f'{val}.2.crop_size=64',
        f'{test}.1.scale=64',
        f'{test}.2.crop_size=64',
        'train_cfg.max_epochs=1',
        *(f'{phase}_dataloader.{key}' for phase in phases for key in ('num_workers=0', 'persistent_workers=False')),
    ]
    command = [str(BY_NAME[name]), '--work-dir', 'work', '--cfg-options', *changes]
    assert run_train(command) == 0
    hub = MessageHub.get_current_instance()
    assert np.isfinite(hub.get_scalar('train/loss').current()) and hub.get_scalar('train/loss').current() > 0
    assert load_file('work/epoch_1.pth')['meta']['iter'] == 1
    said = 'tensors from mmevm://vim_tiny; interpolated backbone.pos_embed'
    assert (said in capsys.readouterr().out) == (name == 'classifier_vim_t_stride8')
    assert run_test([command[0], 'work/epoch_1.pth', *command[1:]]) == 0
    assert np.isfinite(MessageHub.get_current_instance().get_scalar('test/accuracy/top1').current())


def by_beits_rule(name: str, shape: torch.Size, lr: float, decay: float, rate: float) -> tuple[float, float]:
    """Learning rate and weight decay of a parameter, by BEiT's layer decay for 24 blocks."""
    parts = name.split('.')
    lowest = parts[0] == 'backbone' and parts[1] in ('patch_embed', 'cls_token', 'pos_embed')
    layer = 0 if lowest else int(parts[2]) + 1 if name.startswith('backbone.layers.') else 25
    spared = len(shape) == 1 or parts[-1] in ('bias', 'cls_token', 'pos_embed')
    return lr * rate ** (25 - layer), 0.0 if spared else decay


@pytest.mark.parametrize('size, lr, decay, rate', [('t', 2e-4, 0.1, 0.92), ('s', 1e-4, 0.05, 0.95)])
def test_segmentation_config_follows_upstreams_script(size: str, lr: float, decay: float, rate: float) -> None:
    cfg = load(f'upernet_vim_{size}')
    model = build_model(cfg, 'meta')
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    got = {id(p): (group['lr'], group['weight_decay']) for group in wrapper.param_groups for p in group['params']}
    for name, p in model.named_parameters():
        assert got[id(p)] == pytest.approx(by_beits_rule(name, p.shape, lr, decay, rate)), name
    warm_up, poly = cfg.param_scheduler
    assert (warm_up.end, poly.begin, poly.end, cfg.train_cfg.max_iters) == (1500, 1500, 60000, 60000)
    assert cfg.model.backbone.out_indices == (5, 11, 17, 23) and cfg.model.backbone.drop_path_rate == 0.1
    assert cfg.train_dataloader.batch_size == 8
    assert cfg.model.test_cfg == dict(mode='slide', crop_size=(512, 512), stride=(341, 341))


def test_segmentor_has_the_parameters_of_upstreams() -> None:
    cfg = load('upernet_vim_t')
    cfg.model.backbone.img_size = 1024
    count = sum(p.numel() for p in build_model(cfg, 'meta').parameters())
    # As upstream prints its own, which has no class token, nor a position for it.
    assert count == 12_901_100 + 2 * 192


@pytest.mark.parametrize('size, fixture', [('t', 'vim_tiny_64x64'), ('s', 'vim_small_96x96')])
def test_upstreams_classifier_fills_the_backbone_of_a_segmentor(size: str, fixture: str) -> None:
    backbone = MODELS.build(dict(load(f'upernet_vim_{size}').model.backbone, init_cfg=None))
    state = Fixture(fixture).state(outnorm=False)
    report = load_checkpoint(backbone, {'model': state})
    assert report.resampled == ['pos_embed']
    own = backbone.state_dict()
    assert own['pos_embed'].shape[1] == 32 * 32 + 1
    assert all(torch.equal(own[name], state[name]) for name in own if name not in ('pos_embed', 'pos_grid'))


@pytest.mark.parametrize('size, fixture, width', [('t', 'vim_tiny_64x64', 192), ('s', 'vim_small_96x96', 384)])
def test_classifier_of_stride_8_has_a_place_for_every_tensor_of_upstreams_file(
    size: str, fixture: str, width: int
) -> None:
    shapes = Fixture(fixture).meta['manifest'] | {'pos_embed': (1, 27 * 27 + 1, width)}
    with torch.device('meta'):  # names and shapes alone
        state = {key: torch.empty(shape) for key, shape in shapes.items()}
    report = fit_checkpoint(build_model(load(f'classifier_vim_{size}_stride8'), 'meta'), {'model': state})[1]
    assert report.fresh == report.dropped == report.resampled == []
    assert len(report.loaded) == len(state)


def test_tuning_at_stride_8_starts_from_the_whole_classifier_of_stride_16() -> None:
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
    # The middle one of 27 rows lies between the seventh and the eighth of 14.
    torch.testing.assert_close(positions[0, 13 * 27 : 13 * 27 + 13], torch.full((13, 192), 6.5))
    assert torch.equal(model.head.fc.weight, state['head.weight'])
