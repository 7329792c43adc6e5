"""Channels of images against what normalises and augments them."""

from typing import Any

import pytest
from mmengine.config import Config
from mmengine.model import ImgDataPreprocessor
from mmengine.registry import TRANSFORMS

from mmevm.engine.checks.channels import check_channels, packed_channels
from mmevm.errors import UsageError

pytestmark = pytest.mark.openmmlab


def config(preprocessor: dict, channels: int = 4, *steps: dict, scope: str = 'mmseg', inside: bool = True) -> Config:
    model: dict[str, Any] = dict(type='Model', backbone=dict(type='EfficientVMamba', in_channels=channels))
    loader = dict(dataset=dict(type='Dataset', pipeline=list(steps)))
    cfg = dict(default_scope=scope, model=model, train_dataloader=loader)
    types = dict(mmseg='SegDataPreProcessor', mmdet='DetDataPreprocessor', mmpretrain='ClsDataPreprocessor')
    (model if inside else cfg)['data_preprocessor'] = dict(type=types[scope], **preprocessor)
    return Config(cfg)


@pytest.mark.parametrize('inside', [True, False])
@pytest.mark.parametrize(
    ('scope', 'channels', 'count', 'numbers'),
    [
        ('mmpretrain', 4, 3, '1 or 4'),
        ('mmseg', 3, 4, '1 or 3'),
        ('mmpretrain', 1, 3, '1'),
        ('mmdet', 4, 4, '1'),
        ('mmdet', 3, 2, '1 or 3'),
    ],
)
def test_statistics_of_other_channels_are_refused(
    scope: str, channels: int, count: int, numbers: str, inside: bool
) -> None:
    preprocessor = dict(mean=[1.0] * count, std=[1.0] * count)
    with pytest.raises(
        UsageError, match=f'{channels} channels .*must have {numbers} values .* mean {count} and std {count}'
    ):
        check_channels(config(preprocessor, channels, scope=scope, inside=inside), ('train',))


def test_segmentors_take_what_their_library_takes() -> None:
    from mmseg.models import SegDataPreProcessor

    cfg = config(dict(mean=[1.0] * 4, std=[1.0] * 4))
    if issubclass(SegDataPreProcessor, ImgDataPreprocessor):
        with pytest.raises(UsageError, match='must have 1 values'):
            check_channels(cfg, ('train',))
    else:
        check_channels(cfg, ('train',))
    with pytest.raises(UsageError, match='has mean 3 and std 3'):
        check_channels(config(dict(mean=[1.0] * 3, std=[1.0] * 3)), ('train',))


@pytest.mark.parametrize(('scope', 'count'), [('mmseg', 1), ('mmdet', 1), ('mmpretrain', 4)])
def test_fitting_statistics(scope: str, count: int) -> None:
    steps = [dict(type='RandomFlip', prob=0.5), dict(type='RandAugment', policies=[dict(type='Translate')])]
    check_channels(config(dict(mean=[1.0] * count, std=[2.0] * count), 4, *steps, scope=scope), ('train',))
    check_channels(config({}, 4), ('train',))
    check_channels(config(dict(mean=None, std=None, bgr_to_rgb=False), 6), ('train',))


@pytest.mark.parametrize('name', ['bgr_to_rgb', 'rgb_to_bgr'])
def test_only_three_channels_are_reversed(name: str) -> None:
    with pytest.raises(UsageError, match=rf'data_preprocessor.{name}=True takes images of 3 channels.*in_channels=4'):
        check_channels(config({name: True}, scope='mmdet'), ('train',))
    check_channels(config({name: True}, 3, scope='mmdet'), ('train',))
    check_channels(config({name: True}), ('train',))  # mmseg leaves other images alone


@pytest.mark.parametrize(
    'step',
    [
        dict(type='PhotoMetricDistortion'),
        dict(type='mmdet.YOLOXHSVRandomAug'),
        dict(type='RandomApply', transforms=[dict(type='ColorJitter')]),
        dict(type='RandAugment', policies='timm_increasing'),
        dict(type='AutoAugment', policies=[[dict(type='Rotate'), dict(type='ColorTransform')]]),
    ],
)
def test_steps_for_colours_are_named(step: dict) -> None:
    with pytest.raises(
        UsageError, match=r'train_dataloader.dataset has the step \w+, which takes images of 3 channels'
    ):
        check_channels(config({}, 4, step), ('train',))
    check_channels(config({}, 3, step), ('train',))
    check_channels(config({}, 4, step), ('val',))


@pytest.mark.parametrize(
    ('step', 'fault'),
    [
        (dict(type='CachedMosaic', img_scale=(64, 64)), 'takes images of 3 channels'),
        (dict(type='mmdet.MixUp'), 'takes images of 3 channels'),
        (dict(type='ShearX'), 'takes images of 3 channels'),
        (dict(type='Pad', pad_val=dict(img=(114, 114, 114))), 'has 3 values in pad_val'),
        (dict(type='Pad', pad_val=[1, 2, 3]), 'has 3 values in pad_val'),
        (dict(type='Expand', mean=[1.0, 2.0, 3.0]), 'has 3 values in mean'),
        (dict(type='Expand'), 'has 3 values in mean'),
        (dict(type='CutOut', n_holes=1, cutout_shape=(8, 8)), 'has 3 values in fill_in'),
        (dict(type='Equalize'), 'takes images of 3 channels'),
        (dict(type='Resize', scale=8, backend='pillow'), r"resizes by Pillow \(backend='pillow'\)"),
        (
            dict(type='RandAugment', policies=[dict(type='Shear')], hparams=dict(pad_val=[104, 116, 124])),
            'has 3 values in hparams.pad_val',
        ),
    ],
)
def test_steps_of_three_channels_are_named_wherever_they_are(step: dict, fault: str) -> None:
    for channels in (4,) if step['type'] == 'Pad' else (4, 6):
        with pytest.raises(UsageError, match=rf'train_dataloader.dataset has .*{fault}.*in_channels={channels}'):
            check_channels(config({}, channels, step, scope='mmdet'), ('train',))
    check_channels(config({}, 3, step, scope='mmdet'), ('train',))
    inner = config({}, 4, scope='mmdet')
    wrapper = dict(type='MultiImageMixDataset', dataset=inner.train_dataloader.dataset, pipeline=[step])
    inner.train_dataloader.dataset = wrapper
    later = config({}, 4, scope='mmdet')
    later.custom_hooks = [dict(type='PipelineSwitchHook', switch_epoch=280, switch_pipeline=[step])]
    for cfg, where in (inner, 'train_dataloader.dataset'), (later, 'custom_hooks.0'):
        with pytest.raises(UsageError, match=rf'pipeline of {where} has the step .*{fault}'):
            check_channels(cfg, ('train',))
        check_channels(cfg, ('val',))


def test_steps_for_any_number_of_channels() -> None:
    steps = [
        dict(type='Pad', pad_val=dict(img=114)),
        dict(type='Expand', mean=[1.0] * 4),
        dict(type='Pad', size=(8, 8)),
    ]
    check_channels(config({}, 4, *steps, scope='mmdet'), ('train',))
    # Grey images are matrices, which these steps have a form for.
    check_channels(config({}, 1, dict(type='CachedMosaic'), dict(type='MixUp'), scope='mmdet'), ('train',))


def test_opencv_pads_up_to_four_channels() -> None:
    step = dict(type='Pad', size=(8, 8))
    check_channels(config({}, 4, step, scope='mmdet'), ('train',))
    with pytest.raises(UsageError, match='step Pad, which takes images of up to 4 channels'):
        check_channels(config({}, 5, step, scope='mmdet'), ('train',))


@pytest.mark.parametrize('last', [dict(type='RGB2Gray', out_channels=1), dict(type='AddsBands')])
def test_colours_may_be_changed_before_channels_are(last: dict) -> None:
    steps = [dict(type='LoadImageFromFile'), dict(type='PhotoMetricDistortion'), last]
    check_channels(config({}, 1, *steps), ('train',))
    with pytest.raises(UsageError, match='the step PhotoMetricDistortion'):
        check_channels(config({}, 1, *steps, steps[1]), ('train',))


@pytest.mark.parametrize('scope', ['mmdet', 'mmseg', 'mmpretrain'])
@pytest.mark.parametrize(
    ('loading', 'channels', 'loaded'),
    [
        ({}, 4, 3),
        ({}, 1, 3),
        ({'color_type': 'color_ignore_orientation'}, 4, 3),
        ({'color_type': 'grayscale'}, 4, 1),
        ({'color_type': 'grayscale'}, 1, None),
        ({'color_type': 'unchanged'}, 4, None),
        ({'imdecode_backend': 'tifffile'}, 6, None),
        ({}, 3, None),
    ],
)
def test_loading_gives_the_channels_of_the_model(loading: dict, channels: int, loaded: int | None, scope: str) -> None:
    cfg = config(
        {}, channels, dict(type='LoadImageFromFile', **loading), dict(type='RandomFlip', prob=0.5), scope=scope
    )
    if loaded is None:
        check_channels(cfg, ('train',))
    else:
        kind = 'grayscale' if channels == 1 else 'unchanged'
        with pytest.raises(UsageError, match=rf"gives images of {loaded} channels .*Set color_type='{kind}'"):
            check_channels(cfg, ('train',))


@TRANSFORMS.register_module()
class AddsBands:
    def __call__(self, sample: dict) -> dict:
        return sample


@pytest.mark.parametrize('step', [dict(type='AddsBands'), dict(type='Albu', transforms=[]), dict(type='Unknown')])
def test_steps_may_add_channels(step: dict) -> None:
    check_channels(config({}, 4, dict(type='LoadImageFromFile'), step, scope='mmdet'), ('train',))


@pytest.mark.parametrize(
    ('scope', 'own'),
    [('mmdet', None), ('mmseg', 'DualInputSegDataPreProcessor'), ('mmseg', None), ('mmpretrain', None)],
)
def test_only_the_libraries_own_preprocessors_keep_the_channels(scope: str, own: str | None) -> None:
    cfg = config({}, 6, scope=scope)
    if own:
        cfg.model.data_preprocessor.type = own
    assert packed_channels(cfg) == (None if own else 6)


def _nested(step: dict) -> dict:
    return dict(type='RandomApply', transforms=[step], prob=1.0)


@pytest.mark.parametrize('last', [dict(type='AddsBands'), _nested(dict(type='AddsBands')), _nested(dict(type='Albu'))])
def test_steps_inside_of_others_may_add_channels(last: dict) -> None:
    check_channels(config({}, 4, dict(type='LoadImageFromFile'), last), ('train',))


def test_preprocessors_of_a_users_own_may_add_channels() -> None:
    cfg = config({}, 6, dict(type='LoadImageFromFile'), dict(type='PhotoMetricDistortion'))
    cfg.model.data_preprocessor.type = 'my.AddsBands'
    check_channels(cfg, ('train',))


def test_what_a_pipeline_may_be() -> None:
    whole = config({}, 4)
    whole.train_dataloader.dataset.pipeline = dict(type='Compose', transforms=[])
    check_channels(whole, ('train',))
    unchanged = config({}, 4, dict(type='LoadImageFromFile', color_type=-1))
    check_channels(unchanged, ('train',))
    with_function = config({}, 4)
    with_function.train_dataloader.dataset.pipeline = [dict(type='LoadImageFromFile'), AddsBands()]
    check_channels(with_function, ('train',))
    others = config({}, 4)
    others.model.backbone = ['EfficientVMamba']
    check_channels(others, ('train',))


@pytest.mark.parametrize(
    ('step', 'scope', 'channels', 'fault'),
    [
        (dict(type='RandomErasing'), 'mmdet', 4, None),
        (dict(type='RandomErasing'), 'mmpretrain', 4, 'takes images of 3 channels'),
        (dict(type='RandomErasing'), 'mmdet', 1, 'an axis of channels'),
        (dict(type='Expand', mean=[0]), 'mmdet', 1, 'an axis of channels'),
        (dict(type='Expand', mean=[0]), 'mmdet', 4, None),
        (dict(type='CutOut', n_holes=1, fill_in=(0,)), 'mmdet', 4, None),
        (dict(type='RandAugment'), 'mmdet', 4, 'takes images of 3 channels'),
        (dict(type='RandomGrayscale', prob=1.0), 'mmdet', 1, None),
    ],
)
def test_steps_and_numbers_of_channels(step: dict, scope: str, channels: int, fault: str | None) -> None:
    cfg = config({}, channels, step, scope=scope)
    if fault is None:
        check_channels(cfg, ('train',))
    else:
        with pytest.raises(UsageError, match=fault):
            check_channels(cfg, ('train',))


def test_a_backbone_of_ones_own_has_a_default_of_its_own() -> None:
    cfg = config({})
    del cfg.model.backbone['in_channels']
    assert packed_channels(cfg) == 3
    cfg.model.backbone.type = 'MyBackbone'
    assert packed_channels(cfg) is None
