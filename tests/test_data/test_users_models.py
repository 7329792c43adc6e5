"""--data with models that count or name classes in places of their own, and with those that need other annotations."""

from pathlib import Path
from typing import Any

import pytest
from mmengine.config import Config

from mmevm.data.adaptation import adapt, require_task
from mmevm.data.reading import read_data
from mmevm.data.records import UserData
from mmevm.engine.checks.class_counts import class_counts, compare_counts
from mmevm.engine.config import load_config
from mmevm.errors import UsageError

from ..recipes import PATHS
from . import layouts

pytestmark = pytest.mark.openmmlab


@pytest.fixture
def folders(tmp_path: Path) -> UserData:
    """Images of three classes."""
    return read_data(layouts.write_folders(tmp_path / 'folders', {'train': 4, 'val': 2}))


@pytest.fixture
def boxes(tmp_path: Path) -> UserData:
    """Boxes of three classes."""
    return read_data(layouts.write_yolo(tmp_path / 'yolo', {'train': 4, 'val': 2}))


def classifier(**changes: Any) -> Config:
    return load_config(PATHS['classifier_evm_t'], {f'model.{name}': value for name, value in changes.items()})


def test_a_backbone_that_ends_with_the_classifier(folders: UserData, tmp_path: Path) -> None:
    cfg = classifier(train_cfg=None)
    cfg.model.backbone, cfg.model.head = dict(type='VGG', depth=11, num_classes=7), dict(type='ClsHead')
    cfg.val_evaluator = dict(type='SingleLabelMetric', num_classes=3)
    assert class_counts(cfg)['model.backbone.num_classes'] == 7
    assert 'model.backbone.num_classes: 7' in (compare_counts(cfg, ('train', 'val'), []) or '')
    adapt(cfg, folders, tmp_path)
    assert cfg.model.backbone.num_classes == 3 and compare_counts(cfg, ('train', 'val'), []) is None


def test_losses_with_a_number_of_classes_by_default(folders: UserData, tmp_path: Path) -> None:
    cfg = classifier(**{'head.loss': dict(type='SeesawLoss')})
    adapt(cfg, folders, tmp_path)
    assert cfg.model.head.loss.num_classes == 3


@pytest.mark.parametrize('name, old', [('margins', [0.1] * 1000), ('pos_weight', [1.0] * 1000)])
def test_numbers_for_each_class(name: str, old: list[float], folders: UserData, tmp_path: Path) -> None:
    cfg = classifier(**{'head.loss': {'type': 'CrossEntropyLoss', name: old}})
    adapt(cfg, folders, tmp_path)
    assert cfg.model.head.loss[name] == old[:3]
    cfg = classifier(**{'head.loss': {'type': 'CrossEntropyLoss', name: [float(i) for i in range(1000)]}})
    adapt(cfg, folders, tmp_path)
    assert name not in cfg.model.head.loss
    assert any(f'model.head.loss.{name}' in note for note in folders.findings.notes)


def test_a_file_of_weights_is_of_other_classes(folders: UserData, tmp_path: Path) -> None:
    cfg = classifier(**{'head.loss': dict(type='CrossEntropyLoss', class_weight='weights.npy')})
    adapt(cfg, folders, tmp_path)
    assert 'class_weight' not in cfg.model.head.loss
    assert any('model.head.loss.class_weight' in note for note in folders.findings.notes)


def test_models_of_texts_get_the_names(folders: UserData, tmp_path: Path) -> None:
    texts = dict(type='CLIPTextEncoder', dataset_name='coco-stuff164k')
    cfg = classifier(text_encoder=texts, zero_shot=dict(type='CLIPZeroShot', text_prototype='cifar100'))
    adapt(cfg, folders, tmp_path)
    assert cfg.model.text_encoder == dict(type='CLIPTextEncoder', vocabulary=folders.classes)
    assert cfg.model.zero_shot.text_prototype == folders.classes


def test_detectors_that_are_told_what_to_look_for(boxes: UserData, tmp_path: Path) -> None:
    cfg = load_config(PATHS['retinanet_evm_t'])
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        loader.dataset.pipeline[-1] = dict(type='PackDetInputs', meta_keys=('img_id', 'text', 'custom_entities'))
    cfg.val_dataloader.dataset.update(return_classes=True, caption_prompt={'cat': {'prefix': 'a '}})
    adapt(cfg, boxes, tmp_path)
    assert cfg.train_dataloader.dataset.return_classes and cfg.val_dataloader.dataset.return_classes
    assert 'caption_prompt' not in cfg.val_dataloader.dataset
    adapt(plain := load_config(PATHS['retinanet_evm_t']), boxes, tmp_path)
    assert 'return_classes' not in plain.train_dataloader.dataset


def test_folds_do_not_take_a_part_of_a_split(folders: UserData, tmp_path: Path) -> None:
    cfg = classifier()
    cfg.train_dataloader.dataset = dict(type='KFoldDataset', num_splits=4, dataset=cfg.train_dataloader.dataset)
    adapt(cfg, folders, tmp_path)
    assert cfg.train_dataloader.dataset.type == 'CustomDataset'


@pytest.mark.parametrize(
    'name, metric',
    [
        ('classifier_evm_t', 'VOCMultiLabelMetric'),
        ('classifier_evm_t', 'MultiLabelMetric'),
        ('classifier_evm_t', 'RetrievalRecall'),
        ('classifier_evm_t', 'COCOCaption'),
        ('classifier_evm_t', 'MultiTasksMetric'),
        ('retinanet_evm_t', 'ReIDMetrics'),
        ('retinanet_evm_t', 'MOTChallengeMetric'),
        ('retinanet_evm_t', 'RefExpMetric'),
    ],
)
def test_metrics_of_other_annotations_are_refused(name: str, metric: str) -> None:
    cfg = load_config(PATHS[name])
    cfg.val_evaluator = [cfg.val_evaluator, dict(type=metric)]
    with pytest.raises(UsageError, match=f'is evaluated by {metric} .val_evaluator'):
        require_task(cfg, 'config.py')


@pytest.mark.parametrize(
    'name, metric',
    [
        ('classifier_evm_t', 'ConfusionMatrix'),
        ('retinanet_evm_t', 'LVISMetric'),
        ('retinanet_evm_t', 'CrowdHumanMetric'),
        ('retinanet_evm_t', 'MyOwnMetric'),
    ],
)
def test_other_metrics_pass(name: str, metric: str) -> None:
    cfg = load_config(PATHS[name])
    cfg.val_evaluator = dict(type=metric)
    assert require_task(cfg, 'config.py')


def test_labelled_and_unlabelled_datasets_are_refused() -> None:
    cfg = load_config(PATHS['retinanet_evm_t'])
    cfg.train_dataloader.sampler = dict(type='GroupMultiSourceSampler', batch_size=5, source_ratio=[1, 4])
    with pytest.raises(UsageError, match='train_dataloader.sampler.source_ratio'):
        require_task(cfg, 'config.py')
