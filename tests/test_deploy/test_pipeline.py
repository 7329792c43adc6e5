"""Steps of a test pipeline: those of a file are the library's own, and all others are refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mmcv.transforms import CenterCrop, Resize
from mmengine.config import Config
from PIL import Image

from mmevm.deploy.export import main
from mmevm.deploy.quantization import calibration_images
from mmevm.deploy.settings import describe_input
from mmevm.errors import UsageError
from tests.test_deploy import toy
from tests.test_deploy.test_settings import OfAnySize, settings_of

pytestmark = pytest.mark.openmmlab


@pytest.mark.parametrize('image', [(21, 33), (40, 24)])
@pytest.mark.parametrize(
    'options',
    [
        dict(scale_factor=0.5),
        dict(scale_factor=0.37, keep_ratio=True),
        dict(scale_factor=(2.0, 1.5)),
        dict(scale_factor=(2.0, 1.5), keep_ratio=True),
        dict(scale=(20, 30), scale_factor=3.0),
    ],
)
def test_images_are_scaled_by_a_factor_as_in_the_pipeline(options: dict, image: tuple[int, int]) -> None:
    pixels = np.full((*image, 3), 200, np.uint8)
    data, scale = OfAnySize(settings_of(dict(type='Resize', **options))).prepare(pixels)
    expected = Resize(**options)(dict(img=pixels))
    assert data[0].shape[1:] == expected['img'].shape[:2]
    assert scale == pytest.approx(expected['scale_factor'])


def test_a_crop_has_width_and_height() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    data, _ = OfAnySize(settings_of(dict(type='CenterCrop', crop_size=(32, 20)))).prepare(pixels)
    expected = CenterCrop((32, 20))(dict(img=pixels))['img']
    np.testing.assert_array_equal(data[0].transpose(1, 2, 0), expected)


@pytest.mark.parametrize(
    ('step', 'found'),
    [
        (dict(type='Normalize', mean=[0, 0, 0], std=[1, 1, 1]), 'the step Normalize, .* supported are LoadImage'),
        (dict(type='RandomGrayscale', prob=1), 'the step RandomGrayscale'),
        (dict(type='mmpretrain.EfficientNetCenterCrop', crop_size=64), 'the step EfficientNetCenterCrop'),
        (dict(type='ResizeToMultiple'), 'the step ResizeToMultiple'),
        (dict(type='CLAHE'), 'the step CLAHE'),
        (dict(type='Albu', transforms=[]), 'the step Albu'),
        (dict(type='TestTimeAug', transforms=[[]]), 'the step TestTimeAug'),
        (dict(type='MultiScaleFlipAug', transforms=[]), 'the step MultiScaleFlipAug'),
        (dict(type='LoadImageFromFile', color_type='grayscale'), "LoadImageFromFile .* has color_type='grayscale'"),
        (dict(type='LoadImageFromFile', imdecode_backend='tifffile'), "has imdecode_backend='tifffile'"),
        (dict(type='CenterCrop', crop_size=64, efficientnet_style=True), 'has the option efficientnet_style'),
        (dict(type='CenterCrop', crop_size=64, auto_pad=True), 'has auto_pad=True.* supported: False'),
        (dict(type='Pad', size_divisor=32, padding_mode='reflect'), "has padding_mode='reflect'"),
        (dict(type='Resize', scale=(64, 64), interpolation='nearest'), "has interpolation='nearest'"),
        (dict(type='Resize', scale_factor=-0.5), 'has scale_factor=-0.5'),
        (dict(type='Resize', keep_ratio=True), 'has scale_factor=None'),
        (dict(type='ResizeEdge', scale=64, edge='width'), "has edge='width'"),
    ],
)
def test_what_a_file_cannot_do_is_refused(step: dict, found: str) -> None:
    with pytest.raises(UsageError, match=found):
        settings_of(step)


@pytest.mark.parametrize(
    'step',
    [
        dict(type='LoadAnnotations', with_bbox=True),
        dict(type='mmseg.LoadAnnotations', _scope_='mmseg'),
        dict(type='RandomFlip', prob=0.0),
        dict(type='LoadImageFromFile', backend_args=None, to_float32=True),
    ],
)
def test_steps_that_leave_images_alone(step: dict) -> None:
    assert settings_of(step)['resize'] == []


@pytest.mark.parametrize(
    ('model', 'count'),
    [
        (dict(backbone=dict(in_channels=1)), 1),
        (dict(type='EfficientVMamba', in_channels=4), 4),
        (dict(backbone=dict(in_chans=6)), 6),
        (dict(data_preprocessor=dict(mean=[0] * 4, std=[1] * 4)), 4),
    ],
)
def test_other_images_than_colours_are_refused(model: dict[str, Any], count: int) -> None:
    pipeline = [dict(type='LoadImageFromFile', color_type='unchanged')]  # which is refused for images of 3 channels
    loader = dict(dataset=dict(pipeline=pipeline))
    for backbone in False, True:
        with pytest.raises(UsageError, match=f'images of 3 channels; the config is for {count}'):
            describe_input(Config(dict(model=model, test_dataloader=loader)), False, backbone=backbone)


def test_a_backbone_may_have_steps_that_a_predictor_refuses(capsys: pytest.CaptureFixture) -> None:
    pipeline = [dict(type='LoadImageFromFile'), dict(type='CLAHE')]
    cfg = Config(dict(model={}, test_dataloader=dict(dataset=dict(pipeline=pipeline))))
    for size in (None, (64, 64)):
        settings = describe_input(cfg, False, size, backbone=True)
        assert settings['resize'] is None and 'the step CLAHE' in capsys.readouterr().out
    with pytest.raises(ValueError, match='does not say how images are prepared'):
        OfAnySize(settings).prepare(np.zeros((8, 8, 3), np.uint8))


def test_8_bits_need_to_know_how_images_are_prepared(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    settings = toy.classifier()
    settings['test_dataloader']['dataset']['pipeline'][1] = dict(type='CLAHE')
    (tmp_path / 'toy.py').write_text(Config(settings).pretty_text)
    Image.new('RGB', (8, 8)).save(tmp_path / 'a.png')
    arguments = [str(tmp_path / 'toy.py'), '--backbone', '--out', str(tmp_path / 'toy.onnx'), '--int8', str(tmp_path)]
    assert main(arguments) == 2
    assert '--int8 needs to know how images are prepared' in capsys.readouterr().err
    (tmp_path / 'b.png').symlink_to('nowhere.png')
    with pytest.raises(UsageError, match=r'--int8: No image: .*b\.png'):
        calibration_images(str(tmp_path))


@pytest.mark.parametrize(
    ('preprocessor', 'value'),
    [
        (dict(type='DetDataPreprocessor', mean=[10, 20, 30], std=[1, 1, 1], pad_size_divisor=32), [10, 20, 30]),
        (dict(mean=[123.675, 116.28, 103.53], std=[58.0] * 3, bgr_to_rgb=True, pad_size_divisor=32), [104, 116, 124]),
        (dict(mean=[127.5], std=[50.0], pad_value=-9, pad_size_divisor=32), [0, 0, 0]),
        (dict(pad_size_divisor=32, pad_value=114), [114] * 3),
        (
            dict(type='SegDataPreProcessor', mean=[9, 9, 9], std=[1, 1, 1], pad_val=2, test_cfg=dict(size=(64, 64))),
            [11] * 3,
        ),
        (dict(type='SegDataPreProcessor', mean=[9] * 3, std=[1] * 3, test_cfg=dict(size_divisor=16)), [9] * 3),
        (dict(mean=[9] * 3, std=[1] * 3, pad_size_divisor=1), None),
        (dict(type='SegDataPreProcessor', mean=[9] * 3, std=[1] * 3, size=(64, 64)), None),
    ],
)
def test_images_keep_their_ratio_in_a_fixed_size_if_the_preprocessor_pads(preprocessor: dict, value: Any) -> None:
    pipeline = [dict(type='LoadImageFromFile'), dict(type='Resize', scale=(64, 64), keep_ratio=True)]
    loader = dict(dataset=dict(pipeline=pipeline))
    cfg = Config(dict(model=dict(data_preprocessor=preprocessor), test_dataloader=loader))
    settings = describe_input(cfg, False, (64, 64))
    data, scale = OfAnySize(settings | {'mean': None}).prepare(np.full((32, 64, 3), 200, np.uint8))
    assert data.shape == (1, 3, 64, 64) and data[0, :, 0, 0].tolist() == [200] * 3
    if value is None:
        assert scale == (1, 2)
    else:
        assert scale == (1, 1) and data[0, :, -1, 0].tolist() == (value[::-1] if settings['color'] == 'RGB' else value)


def test_both_names_of_reversed_channels() -> None:
    for key in ('bgr_to_rgb', 'rgb_to_bgr'):
        preprocessor = {'mean': [1, 2, 3], 'std': [1, 1, 1], key: True}
        assert describe_input(Config(dict(model=dict(data_preprocessor=preprocessor))), False)['color'] == 'RGB'
