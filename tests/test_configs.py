"""Every ready-made config: it loads, its parts fit, its size and its optimizer are what they should be."""

from math import ceil
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from torch import nn

from mmevm.engine.tasks import build_model

pytestmark = pytest.mark.openmmlab

CONFIGS = Path(__file__).resolve().parents[1] / 'configs'
FILES = sorted(CONFIGS.rglob('*.py'))
BY_NAME = {path.stem: path for path in FILES if path.parent.name != '_base_'}
NAMES = sorted(BY_NAME)
ABLATIONS = [name for name in NAMES if BY_NAME[name].parent.name == 'ablations']

# Millions of parameters: upstream's logs for the classifiers; upstream's backbones under these heads for the others.
PARAMETERS = {
    'classifier_evm_t': 6.494,
    'classifier_evm_s': 11.274,
    'classifier_evm_b': 33.717,
    'retinanet_evm_t': 15.99,
    'retinanet_evm_s': 21.00,
    'retinanet_evm_b': 43.89,
    'mask_rcnn_evm_t': 11.29,
    'mask_rcnn_evm_s': 30.91,
    'mask_rcnn_evm_b': 53.22,
    'upernet_evm_t': 14.49,
    'upernet_evm_s': 28.78,
    'upernet_evm_b': 65.37,
    'demo_retinanet_evm_t_mini': 15.99,
    'demo_mask_rcnn_evm_t_mini': 11.29,
    'demo_upernet_evm_t_mini': 6.99,
    'demo_classifier_evm_t_mini': 6.494,
    'demo_classifier_evm_t_digits': 6.113,
    'classifier_vim_t': 7.148,
    'classifier_vim_s': 25.797,
    # The same and 27 x 27 - 14 x 14 more positions.
    'classifier_vim_t_stride8': 7.148 + 0.102,
    'classifier_vim_s_stride8': 25.797 + 0.205,
    # Upstream's table says 44.4 and 76.3.
    'classifier_vmamba_t': 22.893,
    'classifier_vmamba_s': 44.417,
    'classifier_vmamba_b': 76.254,
    # Upstream's table says 30, 31, 50, 49, 89 and 87.
    'classifier_vmamba_t_s1l8': 30.249,
    'classifier_vmamba_t_s2l5': 30.706,
    'classifier_vmamba_s_s2l15': 50.148,
    'classifier_vmamba_s_s1l20': 49.013,
    'classifier_vmamba_b_s2l15': 88.558,
    'classifier_vmamba_b_s1l20': 86.615,
    # Upstream's tables say 50, 70, 108; 62, 82, 122; and, with more positions, 12.9 and 46.
    'mask_rcnn_vmamba_t': 49.755,
    'mask_rcnn_vmamba_s': 69.654,
    'mask_rcnn_vmamba_b': 107.931,
    'upernet_vmamba_t': 61.903,
    'upernet_vmamba_s': 81.801,
    'upernet_vmamba_b': 122.069,
    'upernet_vim_t': 12.312,
    'upernet_vim_s': 45.449,
}
BATCH = {
    'classifier_evm_t': 2048,
    'classifier_evm_s': 2048,
    'classifier_evm_b': 1024,
    'classifier_vim_t': 1024,
    'classifier_vim_s': 512,
    'classifier_vim_s_stride8': 1024,
    'upernet_vim_t': 32,
    'upernet_vim_s': 32,
    'demo_retinanet_evm_t_mini': 4,
    'demo_mask_rcnn_evm_t_mini': 4,
    'demo_upernet_evm_t_mini': 4,
    'demo_classifier_evm_t_mini': 32,
    'demo_classifier_evm_t_digits': 64,
    'classifier_vmamba_t': 1024,
    'classifier_vmamba_s': 1024,
    'classifier_vmamba_b': 1024,
}


def load(name: str) -> Config:
    return Config.fromfile(BY_NAME[name])


@pytest.mark.parametrize('path', FILES, ids=lambda path: path.relative_to(CONFIGS).with_suffix('').as_posix())
def test_config_is_a_short_delta_that_says_what_it_is(path: Path) -> None:
    lines = path.read_text().splitlines()
    assert lines[0].startswith('# ') and lines[0].endswith('.')
    assert len(lines) <= 65


@pytest.mark.parametrize('name', sorted(set(NAMES) - set(ABLATIONS)))
def test_config_has_the_parameters_of_the_recipe(name: str) -> None:
    millions = sum(p.numel() for p in build_model(load(name), 'meta').parameters()) / 1e6
    expected = PARAMETERS[name.removesuffix('_640').removesuffix('_1x').removesuffix('_3x')]
    assert millions == pytest.approx(expected, abs=0.0051)


@pytest.mark.parametrize('name', NAMES)
def test_config_takes_the_maps_that_the_backbone_gives(name: str) -> None:
    cfg = load(name)
    from mmengine.registry import MODELS

    with torch.device('meta'), MODELS.switch_scope_and_registry(cfg.default_scope) as models:
        maps = MODELS.build(cfg.model.backbone)(torch.zeros(1, 3, 64, 64))
        if cfg.default_scope == 'mmseg' and 'neck' in cfg.model:  # a pyramid from maps of one size
            assert [x.shape[1] for x in maps] == [cfg.model.neck.embed_dim] * 4
            maps = models.build(cfg.model.neck).eval()(maps)
    channels = [x.shape[1] for x in maps]
    strides = [64 // x.shape[2] for x in maps if x.dim() == 4]
    if cfg.default_scope == 'mmpretrain':
        # A class token goes to the head as it is.
        assert (channels, strides) == ([cfg.model.head.in_channels], [32] if cfg.model.get('neck') else [])
        return
    taker = cfg.model.neck if cfg.default_scope == 'mmdet' else cfg.model.decode_head
    assert (channels, strides) == (list(taker.in_channels), [4, 8, 16, 32])
    if cfg.default_scope == 'mmseg':
        assert channels[cfg.model.auxiliary_head.in_index] == cfg.model.auxiliary_head.in_channels


@pytest.mark.parametrize('name', NAMES)
def test_config_states_the_batch_of_its_learning_rate(name: str) -> None:
    cfg = load(name)
    words = name.split('_')
    size = '_'.join(words[:3]) if words[0] == 'classifier' else name
    total = cfg.auto_scale_lr.base_batch_size
    assert total == BATCH.get(name, BATCH.get(size, 16))
    assert total % cfg.train_dataloader.batch_size == 0
    assert not cfg.auto_scale_lr.get('enable', False)


def decays(name: str) -> dict[str, float]:
    """The weight decay of every parameter of a config's model."""
    cfg = load(name)
    model = build_model(cfg, 'meta')
    # MMEngine refuses to build the AMP wrapper on a CPU; the groups do not depend on it.
    wrapper = build_optim_wrapper(model, dict(cfg.optim_wrapper, type='OptimWrapper'))
    got = {id(p): group['weight_decay'] for group in wrapper.param_groups for p in group['params']}
    return {key: got[id(p)] for key, p in model.named_parameters()}


@pytest.mark.parametrize(
    'name, decay, biases',
    [
        ('retinanet_evm_t', 1e-4, True),
        ('mask_rcnn_evm_t_1x', 0.05, True),
        ('mask_rcnn_evm_t_3x', 0.05, True),
        ('upernet_evm_t', 0.01, True),
        ('classifier_evm_t', 0.04, False),
    ],
)
def test_config_decays_neither_norms_nor_state_parameters(name: str, decay: float, biases: bool) -> None:
    model, got = build_model(load(name), 'meta'), decays(name)
    norms = (nn.LayerNorm, nn.modules.batchnorm._BatchNorm)
    places = [place for place, module in model.named_modules() if isinstance(module, norms)]
    undecayed = {key for key in got if key.rpartition('.')[0] in places}
    state = {key for key in got if key.rpartition('.')[2] in ('A_logs', 'Ds')}
    assert len(state) == 8
    undecayed |= state
    if not biases:
        undecayed |= {key for key in got if key.endswith('.bias')}
    assert len(undecayed) > 50
    assert {got[key] for key in undecayed} == {0.0}
    assert {value for key, value in got.items() if key not in undecayed} == {decay}


@pytest.mark.parametrize(
    'name, milestones, epochs, amp',
    [
        ('retinanet_evm_t', [8, 11], 12, False),
        ('mask_rcnn_evm_t_1x', [8, 11], 12, True),
        ('mask_rcnn_evm_b_3x', [27, 33], 36, True),
    ],
)
def test_detection_config_follows_the_schedule_of_the_recipe(
    name: str, milestones: list[int], epochs: int, amp: bool
) -> None:
    cfg = load(name)
    assert cfg.param_scheduler[1].milestones == milestones
    assert cfg.train_cfg.max_epochs == cfg.param_scheduler[1].end == epochs
    assert (cfg.optim_wrapper.type, cfg.optim_wrapper.optimizer.type) == (
        'AmpOptimWrapper' if amp else 'OptimWrapper',
        'AdamW',
    )
    assert cfg.model.backbone.drop_path_rate == 0.2


@pytest.mark.parametrize('name, lr, batch', [('classifier_evm_t', 2e-3, 128), ('classifier_evm_b', 2e-3, 64)])
def test_classifier_config_follows_the_logged_recipe(name: str, lr: float, batch: int) -> None:
    cfg = load(name)
    warm_up, cosine = cfg.param_scheduler
    assert cfg.optim_wrapper.type == 'AmpOptimWrapper'
    assert cfg.optim_wrapper.optimizer == dict(type='AdamW', lr=lr, weight_decay=0.04)
    assert cfg.optim_wrapper.clip_grad == dict(max_norm=1.0)
    assert lr * warm_up.start_factor == pytest.approx(1e-7)
    assert (warm_up.end, cosine.begin, cosine.end, cosine.eta_min, cfg.train_cfg.max_epochs) == (20, 20, 300, 1e-6, 300)
    assert cfg.custom_hooks == [dict(type='EMAHook', momentum=1e-4, priority='ABOVE_NORMAL')]
    assert [(step.type, step.alpha) for step in cfg.model.train_cfg.augments] == [('Mixup', 0.2), ('CutMix', 1.0)]
    assert cfg.model.head.loss.label_smooth_val == 0.1
    assert cfg.model.backbone.drop_path_rate == 0.1
    assert cfg.train_dataloader.batch_size == batch
    erasing = cfg.train_dataloader.dataset.pipeline[4]
    assert (erasing.type, erasing.erase_prob, erasing.mode) == ('RandomErasing', 0.25, 'rand')


def test_classifier_config_augments_as_timms_policy_at_level_9() -> None:
    from mmpretrain.registry import TRANSFORMS

    cfg = load('classifier_evm_t').train_dataloader.dataset.pipeline[3]
    augment = TRANSFORMS.build(dict(cfg, magnitude_std=0.0))
    got = {type(step).__name__: step.random_magnitude() for step in augment.transforms if step.magnitude_range}
    got['Posterize'] = ceil(got['Posterize'])  # as the operation does it
    # timm's `rand-m9`: 30 degrees, 4 bits, threshold 256, 110 added, factors 0.1 to 1.9, each at nine tenths.
    colours = dict.fromkeys(('ColorTransform', 'Contrast', 'Brightness', 'Sharpness'), 0.1 + 0.9 * 1.8 - 1)
    expected = dict(Rotate=27.0, Posterize=int(3.6), Solarize=230.4, SolarizeAdd=99.0, Shear=0.27, Translate=0.405)
    assert got == pytest.approx(expected | colours)
    assert (cfg.type, cfg.magnitude_std, len(augment.transforms)) == ('RandAugment', 0.5, 15)


def test_segmentation_config_follows_the_recipe() -> None:
    cfg = load('upernet_evm_b')
    warm_up, poly = cfg.param_scheduler
    assert cfg.optim_wrapper.type == 'OptimWrapper'
    assert (cfg.optim_wrapper.optimizer.type, cfg.optim_wrapper.optimizer.lr) == ('AdamW', 6e-5)
    assert (warm_up.type, warm_up.end, poly.type, poly.begin, poly.end) == ('LinearLR', 1500, 'PolyLR', 1500, 160000)
    assert cfg.train_cfg.max_iters == 160000
    assert cfg.default_hooks.checkpoint.interval == cfg.train_cfg.val_interval == 16000


def test_segmentation_config_at_640_differs_from_the_one_at_512_in_sizes_alone() -> None:
    small, large = load('upernet_evm_s'), load('upernet_evm_s_640')
    small.model.data_preprocessor.size = (640, 640)
    small.train_dataloader.dataset.pipeline[2].scale = (2560, 640)
    small.train_dataloader.dataset.pipeline[3].crop_size = (640, 640)
    for loader in (small.val_dataloader, small.test_dataloader):
        loader.dataset.pipeline[1].scale = (2560, 640)
    keys = (
        'model',
        'train_dataloader',
        'val_dataloader',
        'test_dataloader',
        'tta_pipeline',
        'optim_wrapper',
        'param_scheduler',
        'train_cfg',
        'default_hooks',
    )
    assert {key for key in keys if small[key] != large[key]} == set()


@pytest.mark.parametrize('name', ABLATIONS)
def test_ablation_config_names_its_table_and_changes_the_blocks_alone(name: str) -> None:
    assert BY_NAME[name].read_text().startswith('# Table ')
    ours, whole = load(name), load(name[: len('classifier_evm_t')])
    changed = {key for key in ours.model.backbone if ours.model.backbone[key] != whole.model.backbone.get(key)}
    if name.endswith('_vmamba'):  # the baseline, which is narrower
        assert changed == {'type', 'arch'}
        ours.model.head.in_channels = whole.model.head.in_channels
    else:
        assert changed <= {'arch', 'fusion'}
    ours.model.backbone = whole.model.backbone
    assert ours.to_dict() == whole.to_dict()


def test_demo_config_changes_weights_data_root_scale_and_schedule_alone() -> None:
    real, demo = load('retinanet_evm_t'), load('demo_retinanet_evm_t_mini')
    assert demo.model.backbone.pop('init_cfg') is None
    assert real.model.backbone.pop('init_cfg').type == 'Pretrained'
    assert demo.model == real.model
    assert demo.custom_imports == real.custom_imports
    for phase in ('train', 'val'):
        ours, theirs = (cfg[f'{phase}_dataloader'].dataset for cfg in (demo, real))
        assert [step.type for step in ours.pipeline] == [step.type for step in theirs.pipeline]
        changed = {key for key in ours if ours[key] != theirs[key]}
        assert changed == {'data_root', 'pipeline'}
