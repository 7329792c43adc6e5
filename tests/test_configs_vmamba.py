"""VMamba's configs: upstream's recipes, upstream's files, and a classifier's training from end to end."""

from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.logging import MessageHub
from mmengine.registry import MODELS

from demo.mini_data import make_mini_data
from mmevm.apis.evaluate import main as run_test
from mmevm.apis.train import main as run_train
from mmevm.checkpoint import load_checkpoint, load_file
from mmevm.checkpoint.load import fit_checkpoint
from mmevm.engine.tasks import build_model
from tools.analysis.complexity import measure

from .parity import Fixture
from .test_configs import BY_NAME, decays, load
from .test_configs_pretrained import contents

pytestmark = pytest.mark.openmmlab


# FLOPs by upstream's table, whose rules are fvcore's too.
@pytest.mark.parametrize(
    'size, drop_path, averaged, flops',
    [
        ('t', 0.1, False, 5.6),
        ('s', 0.3, True, 11.2),
        ('b', 0.6, True, 18.0),
        ('t_s1l8', 0.2, True, 4.9),
        ('t_s2l5', 0.2, True, 4.9),
        ('s_s2l15', 0.3, True, 8.7),
        ('s_s1l20', 0.3, True, 8.6),
        ('b_s2l15', 0.6, True, 15.4),
        ('b_s1l20', 0.5, True, 15.2),
    ],
)
def test_classifier_config_follows_upstreams_recipe(
    size: str, drop_path: float, averaged: bool, flops: float, extension: None
) -> None:
    cfg = load(f'classifier_vmamba_{size}')
    warm_up, cosine = cfg.param_scheduler
    optimizer = cfg.optim_wrapper.optimizer
    assert (optimizer.type, optimizer.lr, optimizer.weight_decay) == ('AdamW', 1e-3, 0.05)
    assert (cfg.optim_wrapper.type, cfg.optim_wrapper.clip_grad) == ('AmpOptimWrapper', dict(max_norm=5.0))
    assert optimizer.lr * warm_up.start_factor == pytest.approx(1e-6)
    assert (warm_up.end, cosine.begin, cosine.end, cosine.eta_min, cfg.train_cfg.max_epochs) == (20, 20, 300, 1e-5, 300)
    ema = [dict(type='EMAHook', momentum=1e-4, priority='ABOVE_NORMAL')] if averaged else None
    assert cfg.get('custom_hooks') == ema
    assert [(step.type, step.alpha) for step in cfg.model.train_cfg.augments] == [('Mixup', 0.8), ('CutMix', 1.0)]
    assert (cfg.model.backbone.drop_path_rate, cfg.train_dataloader.batch_size) == (drop_path, 128)
    assert round(measure(cfg).flops / 1e9, 1) == flops


def test_classifier_config_decays_what_upstream_decays() -> None:
    got = decays('classifier_vmamba_t')
    model = build_model(load('classifier_vmamba_t'), 'meta')
    assert {key for key in got if got[key] == 0} == {key for key, p in model.named_parameters() if p.dim() == 1}
    assert {value for value in got.values() if value} == {0.05}


@pytest.mark.parametrize(
    'size, name',
    [
        ('t', 'vmamba_v0_tiny_64x64'),
        ('t_s1l8', 'vmamba_tiny_s1l8_64x96'),
        ('s_s2l15', 'vmamba_small_s2l15_64x64'),
        ('b_s2l15', 'vmamba_base_s2l15_64x64'),
    ],
)
def test_upstreams_file_fills_the_classifier(size: str, name: str, tmp_path: Path) -> None:
    fixture = Fixture(name)
    state = fixture.state(outnorm=False)
    torch.save({'model': state, 'epoch': 292}, tmp_path / 'vssm.pth')
    model = build_model(load(f'classifier_vmamba_{size}')).eval()
    report = load_checkpoint(model, tmp_path / 'vssm.pth')
    assert report.fresh == report.dropped == report.adapted == []
    assert contents(model.state_dict()) == contents(state)
    with torch.no_grad():
        logits = model.head(model.extract_feat(fixture.images()))
    torch.testing.assert_close(logits, fixture.tensor('logits'), rtol=0, atol=2e-4)


def deepened(manifest: dict[str, list[int]], depth: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a variant whose third stage has another depth: its first block, so many times."""
    start = 'layers.2.blocks.'
    shapes = {key: tuple(shape) for key, shape in manifest.items() if not key.startswith(start)}
    first = {key: tuple(shape) for key, shape in manifest.items() if key.startswith(f'{start}0.')}
    return shapes | {key.replace('.0.', f'.{i}.', 1): shape for i in range(depth) for key, shape in first.items()}


def widened(shapes: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a variant that is a third wider: of 128 channels, not 96."""
    wide = {key: tuple(n * 4 // 3 if n > 3 and n % 3 == 0 else n for n in shape) for key, shape in shapes.items()}
    for key, shape in shapes.items():
        if key.endswith('x_proj_weight'):  # B and C of every state beside the time step's rank
            states = 2 * shapes[key.replace('x_proj_weight', 'A_logs')][1]
            wide[key] = shape[0], (shape[1] - states) * 4 // 3 + states, shape[2] * 4 // 3
    return wide


# Upstream's files of these variants have the names and, but for the width, the shapes of a fixture's.
@pytest.mark.parametrize(
    'size, fixture, depth, wide',
    [
        ('t_s2l5', 'vmamba_small_s2l15_64x64', 5, False),
        ('s_s1l20', 'vmamba_tiny_s1l8_64x96', 20, False),
        ('b_s1l20', 'vmamba_tiny_s1l8_64x96', 20, True),
        ('s', 'vmamba_v0_tiny_64x64', 27, False),
        ('b', 'vmamba_v0_tiny_64x64', 27, True),
    ],
)
def test_classifier_has_a_place_for_every_tensor_of_upstreams_file(
    size: str, fixture: str, depth: int, wide: bool
) -> None:
    shapes = deepened(Fixture(fixture).meta['manifest'], depth)
    with torch.device('meta'):
        state = {key: torch.empty(shape) for key, shape in (widened(shapes) if wide else shapes).items()}
    report = fit_checkpoint(build_model(load(f'classifier_vmamba_{size}'), 'meta'), {'model': state})[1]
    assert report.fresh == report.dropped == report.adapted == []
    assert len(report.loaded) == len(state)


@pytest.mark.parametrize('name', ['classifier_vmamba_t', 'classifier_vmamba_t_s1l8', 'classifier_evm_t_vmamba'])
def test_classifier_trains_and_is_evaluated_on_miniature_data(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
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
    assert run_test([command[0], 'work/epoch_1.pth', *command[1:]]) == 0
    assert np.isfinite(MessageHub.get_current_instance().get_scalar('test/accuracy/top1').current())


@pytest.mark.parametrize('name, decay', [('mask_rcnn_vmamba_t_1x', 0.05), ('upernet_vmamba_t', 0.01)])
def test_dense_config_decays_what_upstream_decays(name: str, decay: float) -> None:
    got = decays(name)
    assert {key for key in got if got[key] == 0} == {key for key in got if 'norm' in key}
    assert {value for value in got.values() if value} == {decay}
    assert sum(key.endswith('A_logs') and got[key] == decay for key in got) == 14


@pytest.mark.parametrize(
    'size, arch, drop_path',
    [
        ('t', 'tiny_s1l8', 0.2),
        ('s', 'small_s2l15', 0.3),
        ('b', 'base_s2l15', 0.6),
    ],
)
def test_dense_configs_follow_upstreams_recipes(size: str, arch: str, drop_path: float) -> None:
    detect, segment = load(f'mask_rcnn_vmamba_{size}_1x'), load(f'upernet_vmamba_{size}')
    init_cfg = dict(type='Pretrained', checkpoint=f'mmevm://vmamba_v2_{arch}')
    for cfg, lr, decay in ((detect, 1e-4, 0.05), (segment, 6e-5, 0.01)):
        backbone = cfg.model.backbone
        assert (backbone.arch, backbone.drop_path_rate, backbone.init_cfg) == (arch, drop_path, init_cfg)
        assert cfg.optim_wrapper.type == 'OptimWrapper'
        assert cfg.optim_wrapper.optimizer == dict(type='AdamW', lr=lr, betas=(0.9, 0.999), weight_decay=decay)
    assert (detect.train_cfg.max_epochs, detect.param_scheduler[1].milestones) == (12, [8, 11])
    assert (segment.train_cfg.max_iters, segment.param_scheduler[0].end) == (160000, 1500)
    assert segment.train_dataloader.dataset.pipeline[3].crop_size == segment.model.data_preprocessor.size == (512, 512)


# Upstream's tables of Mask R-CNN at 1280 x 800 and of UperNet at 2048 x 512.
@pytest.mark.parametrize(
    'name, params, flops',
    [
        ('mask_rcnn_vmamba_t_1x', 50, 271),
        ('upernet_vmamba_t', 62, 949),
    ],
)
def test_dense_models_have_upstreams_size(name: str, params: int, flops: int, extension: None) -> None:
    cost = measure(load(name))
    assert (round(cost.params / 1e6), round(cost.flops / 1e9)) == (params, flops)


@pytest.mark.parametrize(
    'size, fixture',
    [
        ('t', 'vmamba_tiny_s1l8_64x96'),
        ('s', 'vmamba_small_s2l15_64x64'),
        ('b', 'vmamba_base_s2l15_64x64'),
    ],
)
def test_upstreams_classifier_fills_the_backbone_of_a_dense_config(size: str, fixture: str) -> None:
    with torch.device('meta'):  # names and shapes alone
        backbone = MODELS.build(load(f'upernet_vmamba_{size}').model.backbone)
        state = {key: torch.empty(shape) for key, shape in Fixture(fixture).meta['manifest'].items()}
    report = fit_checkpoint(backbone, {'model': state})[1]
    assert report.fresh == [f'outnorm{i}.{leaf}' for i in range(3) for leaf in ('weight', 'bias')]
    assert len(report.loaded) == len(state) - 2 and report.dropped == ['classifier.head.weight', 'classifier.head.bias']
