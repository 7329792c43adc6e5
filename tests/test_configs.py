"""Every config: it follows its recipe, its model's parts fit, its optimizer groups are right, its data can be read."""

import copy
import json
from functools import cache
from math import ceil
from pathlib import Path
from struct import pack

import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DATASETS, init_default_scope
from PIL import Image
from torch import nn

from demo.mini_data import make_mini_data
from mmevm.engine.tasks import build_model

from .recipes import COLUMNS, CONFIGS, PATHS, innermost, read_recipes

pytestmark = pytest.mark.openmmlab

RECIPES = read_recipes()
NAMES = sorted(PATHS)
ABLATIONS = [name for name in NAMES if PATHS[name].parent.name == 'ablations']


@cache
def _read(name: str) -> Config:
    return Config.fromfile(PATHS[name])


def load(name: str) -> Config:
    """Return a config that may be changed."""
    return copy.deepcopy(_read(name))


@cache
def shell(name: str) -> nn.Module:
    """Return a config's model on the meta device."""
    return build_model(_read(name), 'meta')


def test_configs_are_short_and_begin_with_what_they_are() -> None:
    for path in CONFIGS.rglob('*.py'):
        lines = path.read_text().splitlines()
        assert lines[0].startswith('# ') and lines[0].endswith('.') and len(lines) <= 65, path


def test_every_config_but_demos_and_ablations_has_a_recipe() -> None:
    assert set(RECIPES) == {name for name in NAMES if name not in ABLATIONS and not name.startswith('demo_')}


@pytest.mark.parametrize('name', RECIPES)
def test_config_follows_its_recipe(name: str) -> None:
    cfg, recipe = _read(name), dict(RECIPES[name])
    params = float(recipe.pop('params'))
    assert {column: read(cfg) for column, read in COLUMNS.items()} == recipe
    assert sum(p.numel() for p in shell(name).parameters()) / 1e6 == pytest.approx(params, abs=0.0005)
    assert cfg.optim_wrapper.optimizer.type == 'AdamW' and cfg.optim_wrapper.optimizer.fused
    if cfg.param_scheduler:
        alone = len(cfg.param_scheduler) == 1
        assert cfg.param_scheduler[0].end == cfg.param_scheduler[-1].begin or cfg.default_scope == 'mmdet' or alone
        assert cfg.param_scheduler[-1].end == cfg.train_cfg.get('max_iters', cfg.train_cfg.get('max_epochs'))
    assert cfg.auto_scale_lr.base_batch_size % cfg.train_dataloader.batch_size == 0
    assert not cfg.auto_scale_lr.get('enable', False)
    assert cfg.default_hooks.checkpoint.max_keep_ckpts == 3
    assert not cfg.get('checkpoint')  # of the backbone that ours replaces


@pytest.mark.parametrize('name', ABLATIONS)
def test_ablation_config_names_its_table_and_changes_the_blocks_alone(name: str) -> None:
    assert PATHS[name].read_text().startswith('# Table ')
    ours, full = load(name), load(name[: len('classifier_evm_t')])
    changed = {key for key in ours.model.backbone if ours.model.backbone[key] != full.model.backbone.get(key)}
    if name.endswith('_vmamba'):  # the baseline, which is narrower
        assert changed == {'type', 'arch'}
        ours.model.head.in_channels = full.model.head.in_channels
    else:
        assert changed <= {'arch', 'fusion'}
    ours.model.backbone = full.model.backbone
    assert ours.to_dict() == full.to_dict()


STRIDES = {
    'retinanet': [8, 16, 32, 64],
    'demo_retinanet': [8, 16, 32, 64],
    'rtmdet': [8, 16, 32],
    'ssdlite': [16, 32, 64, 64],
}
"""Strides of a detector's first maps, where they are not those of an FPN on all maps; an image has 64 x 64 pixels."""


@pytest.mark.parametrize('name', [name for name in NAMES if '640' not in name])
def test_model_takes_the_maps_of_its_backbone(name: str) -> None:
    cfg, model = _read(name), shell(name).eval()
    with torch.device('meta'), torch.no_grad():
        maps = model.backbone(torch.zeros(1, cfg.model.backbone.get('in_channels', 3), 64, 64))
        maps = model.neck(maps) if model.with_neck else maps
        if cfg.default_scope == 'mmpretrain':
            assert model.head(maps).shape == (1, cfg.model.head.num_classes)
            return
        strides = next((value for key, value in STRIDES.items() if name.startswith(key)), [4, 8, 16, 32])
        assert [64 // x.shape[2] for x in maps[:4]] == strides
        if cfg.default_scope == 'mmseg':
            assert model.decode_head(maps).shape == (1, 150, 16, 16)
            assert not model.with_auxiliary_head or model.auxiliary_head(maps).shape[:2] == (1, 150)
        elif hasattr(model, 'roi_head'):
            assert [x.shape[1] for x in model.rpn_head(maps)[0]] == [3] * 5
            for head, size in ((model.roi_head.bbox_head, 7), (model.roi_head.mask_head, 14)):
                head(torch.zeros(1, maps[0].shape[1], size, size))
        else:
            classes = cfg.model.bbox_head.num_classes
            channels = {'rtmdet': [80] * 3, 'ssdlite': [6 * 81] * 6}.get(name.split('_')[0], [9 * classes] * 5)
            assert [x.shape[1] for x in model.bbox_head(maps)[0]] == channels


def optimizer_groups(name: str) -> dict[str, tuple[float, float]]:
    """Return the learning rate and weight decay of every parameter of a config's model."""
    cfg = load(name)
    # MMEngine refuses to build the AMP wrapper on a CPU; the groups do not depend on it.
    wrapper = build_optim_wrapper(shell(name), dict(cfg.optim_wrapper, type='OptimWrapper'))
    got = {id(p): (group['lr'], group['weight_decay']) for group in wrapper.param_groups for p in group['params']}
    return {key: got[id(p)] for key, p in shell(name).named_parameters()}


def _is_named_norm(name: str, key: str, p: nn.Parameter) -> bool:
    return 'norm' in key


def _is_norm_or_state(name: str, key: str, p: nn.Parameter) -> bool:
    owner = shell(name).get_submodule(key.rpartition('.')[0])
    return isinstance(owner, (nn.LayerNorm, nn.modules.batchnorm._BatchNorm)) or key.endswith(('A_logs', 'Ds'))


def _is_norm_state_or_bias(name: str, key: str, p: nn.Parameter) -> bool:
    return _is_norm_or_state(name, key, p) or key.endswith('.bias')


def _is_vector(name: str, key: str, p: nn.Parameter) -> bool:
    return p.dim() == 1


def _is_vector_or_embedding(name: str, key: str, p: nn.Parameter) -> bool:
    return p.dim() == 1 or key.endswith(('cls_token', 'pos_embed'))


# Upstream's rules: for dense tasks those of its mmdet and mmseg configs, for classifiers those of its optimizers.
@pytest.mark.parametrize(
    'name, without_decay',
    [
        ('retinanet_evm_t', _is_norm_or_state),
        ('mask_rcnn_evm_t_1x', _is_norm_or_state),
        ('mask_rcnn_evm_t_3x', _is_norm_or_state),
        ('ssdlite_evm_t', _is_norm_or_state),
        ('rtmdet_evm_t', _is_norm_state_or_bias),
        ('fpn_evm_t', _is_norm_or_state),
        ('upernet_evm_t', _is_norm_or_state),
        ('classifier_evm_t', _is_norm_state_or_bias),
        ('mask_rcnn_vmamba_t_1x', _is_named_norm),
        ('upernet_vmamba_t', _is_named_norm),
        ('classifier_vmamba_t', _is_vector),
        ('classifier_vim_t', _is_vector_or_embedding),
        ('classifier_vim_s', _is_vector_or_embedding),
        ('classifier_vim_t_stride8', _is_vector_or_embedding),
    ],
)
def test_optimizer_decays_what_upstreams_does(name: str, without_decay) -> None:
    lr, decay = float(RECIPES[name]['lr']), float(RECIPES[name]['decay'])
    expected = {key: (lr, 0.0 if without_decay(name, key, p) else decay) for key, p in shell(name).named_parameters()}
    assert optimizer_groups(name) == expected
    assert {value for _, value in expected.values()} == {0.0, decay}


@pytest.mark.parametrize('name, rate', [('upernet_vim_t', 0.92), ('upernet_vim_s', 0.95)])
def test_optimizer_of_vims_segmentors_follows_beits_layer_decay(name: str, rate: float) -> None:
    lr, decay = float(RECIPES[name]['lr']), float(RECIPES[name]['decay'])
    got = optimizer_groups(name)
    for key, p in shell(name).named_parameters():
        parts = key.split('.')
        lowest = parts[0] == 'backbone' and parts[1] in ('patch_embed', 'cls_token', 'pos_embed')
        layer = 0 if lowest else int(parts[2]) + 1 if key.startswith('backbone.layers.') else 25
        spared = p.dim() == 1 or parts[-1] in ('bias', 'cls_token', 'pos_embed')
        assert got[key] == pytest.approx((lr * rate ** (25 - layer), 0.0 if spared else decay)), key


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


def test_demo_config_changes_weights_data_root_scale_schedule_and_head_alone() -> None:
    real, demo = load('retinanet_evm_t'), load('demo_retinanet_evm_t_mini')
    assert demo.model.backbone.pop('init_cfg') is None
    assert real.model.backbone.pop('init_cfg').type == 'Pretrained'
    assert demo.model.keys() == real.model.keys() and demo.model.type == real.model.type
    changed = {
        key: {name for name in part if part[name] != real.model[key].get(name)}
        for key, part in demo.model.items()
        if isinstance(part, dict)
    }
    assert {key: names for key, names in changed.items() if names} == {
        'backbone': {'drop_path_rate'},
        'neck': {'out_channels', 'norm_cfg'},
        'bbox_head': {'in_channels', 'feat_channels', 'stacked_convs', 'norm_cfg'},
    }
    assert demo.custom_imports == real.custom_imports
    for phase in ('train', 'val'):
        ours, theirs = (cfg[f'{phase}_dataloader'].dataset for cfg in (demo, real))
        assert [step.type for step in ours.pipeline] == [step.type for step in theirs.pipeline]
        assert {key for key in ours if ours[key] != theirs[key]} == {'data_root', 'pipeline'}


@pytest.fixture(scope='module')
def mini(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The data roots of two training and two validation images of each dataset, in the real layouts, by library."""
    out = tmp_path_factory.mktemp('mini')
    coco, ade20k, imagenet = make_mini_data(out, image_size=96, train_images=2, val_images=2)
    for split in ('train', 'val'):
        for digit in range(10):
            path = out / f'digits/{split}/{digit}/0000.png'
            path.parent.mkdir(parents=True)
            Image.new('RGB', (64, 64)).save(path)
    write_fashion(out / 'fashion')
    write_trees(out / 'trees')
    roots = {'mmdet': coco.data_root, 'mmseg': ade20k.data_root, 'mmpretrain': imagenet.data_root}
    return roots | {name: out / name for name in ('digits', 'fashion', 'trees')}


def write_fashion(root: Path) -> None:
    """Two training and two test images in the files of Fashion-MNIST."""
    root.mkdir()
    for split in ('train', 't10k'):
        (root / f'{split}-images-idx3-ubyte').write_bytes(pack('>4i', 0x803, 2, 28, 28) + bytes(2 * 28 * 28))
        (root / f'{split}-labels-idx1-ubyte').write_bytes(pack('>2i', 0x801, 2) + bytes([3, 7]))


def write_trees(root: Path) -> None:
    """Two training and two validation tiles with a tree each, as ``tools/tile_data.py`` writes them."""
    (root / 'annotations').mkdir(parents=True)
    for split in ('train', 'val'):
        (root / split).mkdir()
        content = dict(images=[], annotations=[], categories=[dict(id=1, name='tree')])
        for index in (1, 2):
            Image.effect_noise((400, 400), 50).convert('RGB').save(root / f'{split}/{index}.png')
            content['images'].append(dict(id=index, file_name=f'{split}/{index}.png', width=400, height=400))
            tree = dict(bbox=[180, 180, 40, 40], area=1600, iscrowd=0)
            content['annotations'].append(dict(id=index, image_id=index, category_id=1, **tree))
        (root / f'annotations/{split}.json').write_text(json.dumps(content))


@pytest.fixture(scope='module')
def sizes():
    """The size (height, width) of the first image that a dataset's settings give; equal settings are tried once."""
    known = {}

    def first_size(scope: str, settings: dict, root: Path) -> tuple[int, int]:
        key = repr(settings)
        if key not in known:
            init_default_scope(scope)
            settings = copy.deepcopy(settings)
            # Serializing a dataset collects garbage, which takes a second among so many models.
            innermost(settings).update(data_root=f'{root}/', serialize_data=False)
            dataset = DATASETS.build(settings)
            assert len(dataset) == (10 if root.name == 'digits' else 2) * settings.get('times', 1)
            known[key] = tuple(dataset[0]['inputs'].shape[1:])
        return known[key]

    return first_size


# Detectors see a square image in the largest square within 1333 x 800, segmentors one within 2048 x 512.
EXPECTED = {
    'classifier': ((224, 224), (224, 224)),
    'retinanet': ((800, 800), (800, 800)),
    'mask': ((800, 800), (800, 800)),
    'upernet': ((512, 512), (512, 512)),
    'segformer': ((512, 512), (512, 512)),
    'fpn': ((512, 512), (512, 512)),
    'rtmdet': ((640, 640), (640, 640)),
    'ssdlite': ((320, 320), (320, 320)),
    '640': ((640, 640), (640, 640)),
    '3x': (None, (800, 800)),  # one of several
    'demo': ((128, 128), (128, 128)),
    'demo_classifier': ((64, 64), (64, 64)),
    'fashion': ((56, 56), (56, 56)),
    'trees': ((256, 256), (400, 400)),
}


@pytest.mark.parametrize('name', NAMES)
def test_pipelines_read_the_real_layout(name: str, mini: dict[str, Path], sizes) -> None:
    cfg, words = load(name), name.split('_')
    kind = words[-1] if words[-1] in EXPECTED else '_'.join(words[:2]) if name.startswith('demo_c') else words[0]
    train, test = EXPECTED[kind]
    root = mini[words[-1] if words[-1] in mini else cfg.default_scope]
    assert sizes(cfg.default_scope, cfg.train_dataloader.dataset, root) == train or train is None
    for phase in ('val', 'test'):
        assert sizes(cfg.default_scope, cfg[f'{phase}_dataloader'].dataset, root) == test


# Classifiers of EfficientVMamba and Vim, and the demos, are trained in tests/test_configs_train.py and
# tests/test_demo/test_demos.py.
@pytest.mark.parametrize(
    'name',
    [
        'classifier_evm_t',
        'classifier_evm_t_vmamba',
        'classifier_vmamba_t',
        'classifier_vmamba_t_s1l8',
        'mask_rcnn_evm_t_3x',
        'mask_rcnn_vmamba_t_1x',
        'rtmdet_evm_t',
        'rtmdet_ins_evm_t',
        'ssdlite_evm_t',
        'segformer_evm_t',
        'fpn_evm_t',
        'upernet_evm_t_640',
        'upernet_vmamba_t',
    ],
)
def test_model_has_gradients_of_its_loss_on_miniature_data(name: str, mini: dict[str, Path]) -> None:
    cfg = load(name)
    if 'data_preprocessor' in cfg:  # as MMEngine's runner does it
        cfg.model.setdefault('data_preprocessor', cfg.data_preprocessor)
    model = build_model(cfg).train()
    dataset = innermost(cfg.train_dataloader.dataset)
    for step in dataset.pipeline:  # smaller images, for speed
        for key in ('scale', 'crop_size', 'img_scale', 'size'):
            if key in step:
                step[key] = 64 if isinstance(step[key], int) else (64, 64)
        for choice in step.get('transforms', []):
            for part in choice:
                part.update({'scales': [(64, 64)]} if 'scales' in part else {})
                part.update({'crop_size': (40, 48)} if 'crop_size' in part else {})
    dataset.data_root = f'{mini[cfg.default_scope]}/'
    dataset = DATASETS.build(dataset)
    if cfg.default_scope == 'mmseg':
        model.data_preprocessor.size = (64, 64)
    data = model.data_preprocessor(pseudo_collate([dataset[0], dataset[1]]), True)
    losses, _ = model.parse_losses(model(**data, mode='loss'))
    losses.backward()
    assert losses.isfinite() and losses > 0
    idle = [key for key, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert idle == []
