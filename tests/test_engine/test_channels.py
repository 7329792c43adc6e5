"""Channels of images against what normalises and augments them."""

from typing import Any

import pytest
from mmengine.config import Config
from mmengine.model import ImgDataPreprocessor

from mmevm.engine.checks.channels import check_channels
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
