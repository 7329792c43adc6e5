"""What an exported file says about its images."""

from types import SimpleNamespace

import numpy as np
import pytest
from mmcv.transforms import Pad, Resize
from mmengine.config import Config

from mmevm.deploy.predictor import Predictor
from mmevm.deploy.settings import describe_input

pytestmark = pytest.mark.openmmlab
KEPT = dict(type='Resize', scale=(60, 40), keep_ratio=True)
VALUE = dict(img=(7, 8, 9))


def settings_of(*steps: dict, size: tuple[int, int] | None = None) -> dict:
    pipeline = [dict(type='LoadImageFromFile'), *steps, dict(type='PackDetInputs')]
    return describe_input(Config(dict(model={}, test_dataloader=dict(dataset=dict(pipeline=pipeline)))), False, size)


class OfAnySize(Predictor):
    """A predictor without a model."""

    def __init__(self, settings: dict) -> None:
        self.input = settings
        self.session = SimpleNamespace(get_inputs=lambda: [SimpleNamespace(shape=[1, 3, 'height', 'width'])])


@pytest.mark.parametrize(
    'padding',
    [
        dict(size=(64, 72)),
        dict(size=(30, 20)),
        dict(size_divisor=32),
        dict(pad_to_square=True),
        dict(pad_to_square=True, size_divisor=32),
    ],
)
@pytest.mark.parametrize('image', [(50, 100), (100, 50), (64, 64)])
def test_images_are_padded_as_in_the_pipeline(padding: dict, image: tuple[int, int]) -> None:
    pixels = np.full((*image, 3), 200, np.uint8)
    data, _ = OfAnySize(settings_of(KEPT, dict(type='Pad', pad_val=VALUE, **padding))).prepare(pixels)
    expected = Pad(pad_val=VALUE, **padding)(Resize(scale=(60, 40), keep_ratio=True)(dict(img=pixels)))['img']
    np.testing.assert_array_equal(data[0].transpose(1, 2, 0)[..., ::-1], expected)


def test_a_fixed_size_is_the_last_step() -> None:
    steps = settings_of(KEPT, dict(type='Pad', size_divisor=32, pad_val=VALUE), size=(48, 96))['resize']
    assert [step.get('within') or step.get('pad') or step['scale'] for step in steps] == [[60, 40], [48, 96], [48, 96]]
    steps = settings_of(KEPT, size=(48, 96))['resize']
    assert [(step['scale'], step['keep_ratio']) for step in steps] == [([60, 40], True), ([96, 48], False)]


@pytest.mark.parametrize(
    ('preprocessor', 'color'),
    [
        (dict(type='DetDataPreprocessor', pad_size_divisor=32), 'BGR'),
        (dict(type='DetDataPreprocessor', bgr_to_rgb=True), 'RGB'),
    ],
)
def test_without_statistics_the_channels_are_in_the_order_of_the_pipeline(preprocessor: dict, color: str) -> None:
    pipeline = [dict(type='LoadImageFromFile'), dict(type='PackDetInputs')]
    cfg = dict(model=dict(data_preprocessor=preprocessor), test_dataloader=dict(dataset=dict(pipeline=pipeline)))
    assert describe_input(Config(cfg), False)['color'] == color


def test_a_bare_backbone_takes_rgb(capsys: pytest.CaptureFixture) -> None:
    assert describe_input(Config(dict(model=dict(type='EfficientVMamba'))), False)['color'] == 'RGB'
    assert 'the config has no test pipeline: the file takes images at their own size' in capsys.readouterr().out


def test_the_pipeline_of_the_validation_data_stands_in_for_the_tests() -> None:
    pipeline = [dict(type='LoadImageFromFile'), KEPT, dict(type='PackDetInputs')]
    for cfg in (
        dict(val_dataloader=dict(dataset=dict(pipeline=pipeline))),
        dict(val_dataloader=dict(dataset=dict(pipeline=pipeline)), test_dataloader=None),
        dict(val_pipeline=pipeline),
    ):
        (step,) = describe_input(Config(dict(model={}, **cfg)), False)['resize']
        assert step['scale'] == [60, 40]
