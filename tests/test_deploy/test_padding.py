"""Images are padded as in PyTorch, and the comparison sees whether they are."""

from typing import Any

import pytest
import torch
from mmengine.config import Config

from mmevm.deploy.export import wrap
from mmevm.deploy.settings import describe_input
from mmevm.engine.tasks import build_model
from tests.test_deploy import toy

pytestmark = pytest.mark.openmmlab


PADDING = [dict(size_divisor=32), dict(size=(96, 128)), dict(size=(32, 32))]


@pytest.mark.parametrize('padding', PADDING)
def test_segmentors_pad_as_mmseg_does(padding: dict) -> None:
    from mmseg.structures import SegDataSample

    config, size = toy.segmentor(), (71, 90)
    config['model']['data_preprocessor'] |= dict(test_cfg=padding, pad_val=3)
    model = toy.spread(build_model(Config(config)))
    module = wrap(Config(config), model).eval()
    pixels = torch.randint(0, 256, (3, *size), dtype=torch.uint8)
    sample = SegDataSample(metainfo=dict(ori_shape=size, img_shape=size))
    data = model.data_preprocessor(dict(inputs=[pixels], data_samples=[sample]))
    with torch.no_grad():
        (expected,) = model.predict(**data)
        images = ((pixels.flip(0) - model.data_preprocessor.mean) / model.data_preprocessor.std)[None]
        classes, logits = module(images)
        differences = module.compare((classes, logits), images)
    torch.testing.assert_close(logits[0], expected.seg_logits.data, rtol=1e-4, atol=1e-4)
    assert classes.shape[1:] == size
    assert (classes[0] != expected.pred_sem_seg.data[0]).float().mean() < 1e-3
    assert all(difference.value <= difference.allowed for difference in differences)
    module.divisor, module.least = 1, (0, 0)  # a file without padding
    if padding != dict(size=(32, 32)):
        with torch.no_grad():
            (difference, _) = module.compare(module(images), images)
        assert difference.value > difference.allowed


@pytest.mark.parametrize('make', [toy.classifier, toy.retinanet, toy.segmentor])
def test_a_preprocessor_beside_the_model_is_the_models(make: Any) -> None:
    config, beside = make(), make()
    beside['data_preprocessor'] = beside['model'].pop('data_preprocessor')
    first, second = (build_model(Config(form)).data_preprocessor for form in (config, beside))
    assert type(first) is type(second) and torch.equal(first.mean, second.mean)
    assert describe_input(Config(config), True) == describe_input(Config(beside), True)
    beside['model']['data_preprocessor'] = dict(type=type(first).__name__)  # MMEngine does not merge the two
    assert not hasattr(build_model(Config(beside)).data_preprocessor, 'mean')
    assert describe_input(Config(beside), False)['mean'] is None


@pytest.mark.parametrize('make', [toy.classifier, toy.retinanet])
def test_images_are_padded_as_by_the_data_preprocessor(make: Any) -> None:
    config = make()
    config['model']['data_preprocessor'] |= dict(pad_size_divisor=32, pad_value=2.5)
    model = build_model(Config(config)).eval()
    pixels = torch.randint(0, 256, (3, 50, 70), dtype=torch.uint8)
    preprocessor = model.data_preprocessor
    expected = preprocessor(dict(inputs=[pixels], data_samples=None))['inputs']
    images = ((pixels.flip(0) - preprocessor.mean) / preprocessor.std)[None]
    found = wrap(Config(config), model).pad(images)
    assert found.shape == (1, 3, 64, 96)
    torch.testing.assert_close(found, expected)
