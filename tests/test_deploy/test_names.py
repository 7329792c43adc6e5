"""Names of classes in a file are those of the model."""

from typing import Any

import pytest
from mmengine.config import Config, ConfigDict

from mmevm.deploy.settings import find_classes
from mmevm.errors import UsageError
from tests.test_deploy import toy

pytestmark = pytest.mark.openmmlab


def without_names(config: dict[str, Any], dataset: str) -> Config:
    config['test_dataloader']['dataset'] = dict(type=dataset, pipeline=[])
    return Config(config)


@pytest.mark.parametrize(
    ('config', 'dataset', 'count'),
    [
        (toy.classifier, 'ImageNet', 1000),
        (toy.retinanet, 'CocoDataset', 80),
        (toy.mask_rcnn, 'CocoDataset', 80),
        (toy.segmentor, 'ADE20KDataset', 150),
    ],
)
def test_names_of_another_dataset_are_left_out(
    config: Any, dataset: str, count: int, capsys: pytest.CaptureFixture
) -> None:
    assert find_classes(without_names(config(), dataset), {}) is None
    assert f'no class names in the file: the test dataset has {count} names' in capsys.readouterr().out


def test_names_that_fit_are_kept() -> None:
    cfg = without_names(toy.classifier(), 'CIFAR10')
    cfg.model.head.num_classes = 10
    assert find_classes(cfg, {})[0] == 'airplane'
    cfg = Config(toy.segmentor())
    cfg.model.decode_head.update(num_classes=2, out_channels=1)
    assert find_classes(cfg, {'dataset_meta': {'classes': ('sky', 'sea')}}) == ['sky', 'sea']
    cfg = Config(toy.retinanet())
    cfg.model.language_model = ConfigDict(type='BertModel')  # its classes are texts
    assert find_classes(cfg, {'dataset_meta': {'CLASSES': ('cat',)}}) == ['cat']


@pytest.mark.parametrize('config', [toy.classifier, toy.retinanet, toy.mask_rcnn, toy.segmentor])
@pytest.mark.parametrize('key', ['classes', 'CLASSES'])
def test_names_in_a_checkpoint_must_fit(config: Any, key: str) -> None:
    count = 4 if config is toy.segmentor else 3
    with pytest.raises(UsageError, match=rf"checkpoint has 2 names of classes \(a, b\) for the model's {count}"):
        find_classes(Config(config()), {'dataset_meta': {key: ('a', 'b')}})


def test_names_in_a_config_must_fit() -> None:
    cfg = Config(toy.classifier())
    cfg.test_dataloader.dataset.classes = ['a', 'b']
    with pytest.raises(UsageError, match='The config has 2 names of classes'):
        find_classes(cfg, {})
