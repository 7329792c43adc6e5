"""Numbers of classes of heads, phases that disagree, and our own configs, before a model is built."""

import json
from pathlib import Path

import pytest
from mmengine.config import Config

from demo.mini_data import make_mini_data
from mmevm.engine.checks.class_counts import class_counts
from mmevm.engine.checks.classes import check_classes
from mmevm.engine.checks.paths import check_data, move_data_root

from .conftest import our_config
from .datasets import classification, detection, problems, segmentation, write_coco

pytestmark = pytest.mark.openmmlab


def test_class_counts_finds_heads_and_leaves_proposals_and_other_classes_out() -> None:
    head = dict(type='Shared2FCBBoxHead', num_classes=3, loss_cls=dict(type='SeesawLoss', num_classes=3))
    roi_head = dict(
        bbox_head=[head, dict(head, num_classes=4)],
        mask_head=dict(type='FCNMaskHead'),
        semantic_head=dict(type='FusedSemanticHead', num_classes=183),
    )
    model = dict(
        detector=dict(rpn_head=dict(type='RPNHead', num_classes=1), roi_head=roi_head, backbone=dict(num_classes=1000)),
        panoptic_head=dict(num_things_classes=80, num_stuff_classes=53),
    )
    assert class_counts(Config(dict(default_scope='mmdet', model=model))) == {
        'model.detector.roi_head.bbox_head.0.num_classes': 3,
        'model.detector.roi_head.bbox_head.0.loss_cls.num_classes': 3,
        'model.detector.roi_head.bbox_head.1.num_classes': 4,
        'model.detector.roi_head.bbox_head.1.loss_cls.num_classes': 3,
        'model.detector.roi_head.mask_head.num_classes': 80,
        'model.panoptic_head.num_things_classes': 133,
    }


def test_heads_of_other_libraries_that_count_something_else_pass(tmp_path: Path) -> None:
    cfg = segmentation(tmp_path, [0, 1, 2], 3)
    cfg.model = dict(
        decode_head=dict(type='Mask2FormerHead', num_classes=3, out_channels=256),
        auxiliary_head=[dict(type='STDCHead', num_classes=2)],
    )
    check_classes(cfg, ('train',))
    assert class_counts(cfg) == {'model.decode_head.num_classes': 3}


def test_panoptic_models_count_objects_and_regions(tmp_path: Path, notes: list[str]) -> None:
    from mmdet.datasets import CocoPanopticDataset

    write_coco(tmp_path / 'train.json', CocoPanopticDataset.METAINFO['classes'])
    model = dict(
        roi_head=dict(bbox_head=dict(num_classes=80)),
        panoptic_fusion_head=dict(num_things_classes=80, num_stuff_classes=53),
    )
    cfg = detection(tmp_path, **model)
    cfg.train_dataloader.dataset.update(type='CocoPanopticDataset', data_prefix=dict(img='', seg=''))
    check_classes(cfg, ('train',))
    assert notes == []
    cfg.model.roi_head.bbox_head.num_classes = 79
    assert '80 classes' in problems(cfg)


def test_a_tracking_dataset_may_have_more_names_than_its_detector() -> None:
    video = dict(type='MOTChallengeDataset', data_root='data', ann_file='a.json')
    cfg = Config(
        dict(
            default_scope='mmdet',
            model=dict(detector=dict(bbox_head=dict(type='YOLOXHead', num_classes=1))),
            train_dataloader=dict(dataset=dict(video, metainfo=dict(classes=('pedestrian',)))),
            val_dataloader=dict(dataset=video),
        )
    )
    check_classes(cfg, ('train', 'val'))


def test_annotations_in_an_unforeseen_form_are_reported_and_not_refused(tmp_path: Path, notes: list[str]) -> None:
    (tmp_path / 'a.json').write_text(json.dumps(dict(metainfo={}, data_list=['a.jpg'])))
    train = dict(type='MultiLabelDataset', ann_file='a.json', data_root=str(tmp_path))
    check_classes(classification(3, train), ('train',))
    assert len(notes) == 1 and 'could not be compared with its annotations: AttributeError' in notes[0]


def test_fewer_classes_than_the_head_has_are_reported(tmp_path: Path, notes: list[str]) -> None:
    write_coco(tmp_path / 'train.json', ['cat', 'dog'])
    check_classes(detection(tmp_path, ('cat', 'dog'), 80), ('train',))
    assert notes == [
        'model.bbox_head.num_classes = 80, and train_dataloader.dataset has 2 classes: the model has '
        'outputs that nothing trains.'
    ]


@pytest.mark.parametrize('config', ['retinanet_evm_t', 'mask_rcnn_evm_t_1x', 'upernet_evm_t', 'classifier_evm_t'])
def test_the_classes_of_our_own_configs_and_miniature_data_agree(config: str, tmp_path: Path, notes: list[str]) -> None:
    kind = dict(r='coco', m='coco', u='ade20k', c='imagenet')[config[0]]
    made = make_mini_data(tmp_path, [kind], image_size=64, train_images=2, val_images=1)[0]
    cfg = our_config(config)
    move_data_root(cfg, str(made.data_root))
    check_data(cfg, ('train', 'val', 'test'), '')
    check_classes(cfg, ('train', 'val', 'test'))
    assert [note for note in notes if 'no annotation of' not in note] == []
