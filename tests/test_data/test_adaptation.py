"""Configs for users' datasets: every data loader, evaluator and number of classes."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mmengine.config import Config

from mmevm.data.adaptation import adapt, check_fit, require_task
from mmevm.data.classes import match_classes
from mmevm.data.reading import read_data
from mmevm.data.records import UserData
from mmevm.data.summary import refusal
from mmevm.engine.checks.class_counts import class_counts
from mmevm.engine.checks.classes import check_classes
from mmevm.engine.checks.datasets import leaves
from mmevm.engine.config import load_config
from mmevm.engine.options import parts
from mmevm.errors import UsageError

from ..recipes import PATHS
from . import layouts

pytestmark = pytest.mark.openmmlab

PHASES = ('train', 'val', 'test')
BOTH = {'train': 4, 'val': 2}


@pytest.fixture(scope='module')
def roots(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A dataset of each kind."""
    root = tmp_path_factory.mktemp('data')
    return {
        'mmdet': layouts.write_yolo(root / 'yolo', BOTH, polygons=True),
        'mmseg': layouts.write_masks(root / 'masks', BOTH),
        'mmpretrain': layouts.write_folders(root / 'folders', BOTH),
    }


def adapted(cfg: Config, data: UserData, folder: Path) -> Config:
    """Adapt a config, and check it as the tools do."""
    require_task(cfg, 'config.py')
    check_fit(cfg, data, 'config.py')
    assert refusal(data) is None
    adapt(cfg, data, folder)
    check_classes(cfg, PHASES)
    return cfg


NAMES = (
    'retinanet_evm_t mask_rcnn_evm_t_3x rtmdet_evm_t rtmdet_ins_evm_t ssdlite_evm_t upernet_evm_t segformer_evm_t '
    'fpn_evm_t classifier_evm_t classifier_vim_t_stride8 classifier_vmamba_t upernet_vim_t'
)


@pytest.mark.parametrize('name', NAMES.split())
def test_our_configs_agree_with_the_dataset_and_stay_plain(name: str, roots: dict[str, Path], tmp_path: Path) -> None:
    cfg = load_config(PATHS[name])
    data = read_data(roots[cfg.default_scope])
    adapted(cfg, data, tmp_path)
    assert set(class_counts(cfg).values()) == {3}
    for leaf in leaves(cfg, PHASES):
        assert tuple(leaf.settings['metainfo']['classes']) == tuple(data.classes)
        assert 'val' in leaf.settings['ann_file'] or leaf.phase == 'train'
    (tmp_path / 'config.py').write_text(cfg.pretty_text)
    again = Config.fromfile(tmp_path / 'config.py')
    assert class_counts(again) == class_counts(cfg)
    assert [leaf.settings for leaf in leaves(again, PHASES)] == [leaf.settings for leaf in leaves(cfg, PHASES)]
    assert all(not callable(value) for _, part in parts(again._cfg_dict, '') for value in part.values())


def detector(dataset: dict, **model: Any) -> Config:
    """A user's config of MMDetection."""
    loader = dict(batch_size=2, dataset=dict(type='VOCDataset', data_root='old', ann_file='a.txt', pipeline=[]))
    return Config(
        dict(
            default_scope='mmdet',
            model=model or dict(bbox_head=dict(type='RetinaHead', num_classes=20)),
            train_dataloader=dict(batch_size=2, dataset=dataset),
            val_dataloader=loader,
            test_dataloader=loader,
            val_evaluator=dict(type='VOCMetric', metric='mAP'),
            test_evaluator=[dict(type='CocoMetric', ann_file='x.json', metric=['bbox', 'segm'], format_only=True)],
            tta_pipeline=[dict(type='LoadImageFromFile', backend_args=dict(backend='petrel'))],
        )
    )


def leaf(**more: Any) -> dict:
    return dict(type='CocoDataset', ann_file='old.json', filter_cfg=dict(filter_empty_gt=True), **more, pipeline=[])


@pytest.mark.parametrize(
    'dataset',
    [
        leaf(),
        dict(type='RepeatDataset', times=3, dataset=leaf()),
        dict(
            type='ClassBalancedDataset', oversample_thr=0.1, dataset=dict(type='RepeatDataset', times=2, dataset=leaf())
        ),
        dict(type='MultiImageMixDataset', dataset=leaf(), pipeline=[dict(type='Mosaic')]),
        dict(type='ConcatDataset', datasets=[leaf(), leaf(data_root='other')]),
        dict(
            type='MultiImageMixDataset',
            pipeline=[],
            dataset=dict(type='ConcatDataset', datasets=[dict(type='RepeatDataset', times=2, dataset=leaf()), leaf()]),
        ),
    ],
)
def test_any_number_of_wrappers_stay_around_one_dataset(dataset: dict, roots: dict[str, Path], tmp_path: Path) -> None:
    cfg = detector(dataset)
    outer = dataset['type']
    adapted(cfg, read_data(roots['mmdet']), tmp_path)
    assert cfg.train_dataloader.dataset.type == outer
    (inner,) = leaves(cfg, ('train',))
    assert inner.settings['filter_cfg'] == dict(filter_empty_gt=True)
    assert len(inner.kind(**{k: v for k, v in inner.settings.items() if k not in ('type', 'pipeline')})) == 4
    assert cfg.val_evaluator.type == 'CocoMetric' and cfg.val_evaluator.metric == 'bbox'
    assert cfg.test_evaluator[0].metric == ['bbox'] and 'format_only' not in cfg.test_evaluator[0]
    assert cfg.test_evaluator[0].ann_file == cfg.val_evaluator.ann_file == cfg.val_dataloader.dataset.ann_file
    assert cfg.tta_pipeline == [dict(type='LoadImageFromFile')]


def test_heads_in_lists_and_weights_of_classes(roots: dict[str, Path], tmp_path: Path) -> None:
    heads = [dict(type='Shared2FCBBoxHead', num_classes=20) for _ in range(3)]
    model = dict(
        rpn_head=dict(type='RPNHead', num_classes=1),
        roi_head=dict(type='CascadeRoIHead', bbox_head=heads, mask_head=[dict(type='FCNMaskHead', num_classes=20)] * 3),
        bbox_head=dict(type='DETRHead', num_classes=20, loss_cls=dict(class_weight=[1.0] * 20 + [0.1])),
        mask_head=dict(type='FCNMaskHead', num_classes=20, loss_mask=dict(class_weight=[float(i) for i in range(20)])),
    )
    data = read_data(roots['mmdet'])
    cfg = adapted(detector(leaf(), **model), data, tmp_path)
    assert [head.num_classes for head in (*cfg.model.roi_head.bbox_head, *cfg.model.roi_head.mask_head)] == [3] * 6
    assert cfg.model.rpn_head.num_classes == 1
    assert cfg.model.bbox_head.loss_cls.class_weight == [1.0, 1.0, 1.0, 0.1]
    assert 'class_weight' not in cfg.model.mask_head.loss_mask
    assert any('model.mask_head.loss_mask.class_weight' in note for note in data.findings.notes)


def test_every_place_of_a_classifier(roots: dict[str, Path], tmp_path: Path) -> None:
    cfg = load_config(PATHS['classifier_evm_t'])
    cfg.merge_from_dict({'model.head.loss.num_classes': 1000, 'model.head.topk': (1, 5), 'num_classes': 1000})
    cfg.model.train_cfg.augments[0].num_classes = 1000
    cfg.val_evaluator = [dict(type='Accuracy', topk=(1, 5)), dict(type='SingleLabelMetric', num_classes=1000)]
    adapted(cfg, read_data(roots['mmpretrain']), tmp_path)
    assert cfg.model.head.num_classes == cfg.model.head.loss.num_classes == cfg.data_preprocessor.num_classes == 3
    assert cfg.model.train_cfg.augments[0].num_classes == cfg.num_classes == cfg.val_evaluator[1].num_classes == 3
    assert tuple(cfg.model.head.topk) == tuple(cfg.val_evaluator[0].topk) == (1,)
    assert '1000' not in str(cfg.model) and len(set(map(str, cfg.val_evaluator))) == 2


def test_every_place_of_a_segmentor(tmp_path: Path) -> None:
    root = layouts.write_masks(tmp_path / 'data', BOTH)
    (root / 'classes.txt').write_text('road\nsky')  # 1 and 2; 0 has no class
    cfg = load_config(PATHS['upernet_evm_t'])
    cfg.merge_from_dict({'model.decode_head.ignore_index': 0, 'model.auxiliary_head.out_channels': 1})
    cfg.merge_from_dict({'model.decode_head.out_channels': 150})
    cfg.train_dataloader.dataset.pipeline[1].reduce_zero_label = False
    cfg.val_evaluator = dict(type='CityscapesMetric')
    adapted(cfg, read_data(root), tmp_path / 'out')
    assert cfg.model.decode_head.num_classes == cfg.model.auxiliary_head.num_classes == 2
    assert cfg.model.decode_head.ignore_index == 255 and 'out_channels' not in cfg.model.decode_head
    assert cfg.model.auxiliary_head.out_channels == 1
    assert cfg.train_dataloader.dataset.reduce_zero_label is cfg.train_dataloader.dataset.pipeline[1].reduce_zero_label
    assert cfg.train_dataloader.dataset.reduce_zero_label is True and cfg.val_evaluator.type == 'IoUMetric'
    assert cfg.val_dataloader.dataset.data_prefix.seg_map_path == 'masks/val' or (
        cfg.val_dataloader.dataset.data_prefix.seg_map_path == 'masks'
    )


def test_a_coco_dataset_is_used_where_it_is(tmp_path: Path) -> None:
    root = layouts.write_coco(tmp_path / 'data', {'train2017': 4, 'val2017': 2})
    cfg = adapted(load_config(PATHS['retinanet_evm_t']), read_data(root), tmp_path / 'out')
    assert cfg.train_dataloader.dataset.ann_file == 'annotations/instances_train2017.json'
    assert cfg.train_dataloader.dataset.data_prefix == dict(img='train2017') and not (tmp_path / 'out').exists()
    assert cfg.val_evaluator.ann_file == str(root / 'annotations/instances_val2017.json')


@pytest.mark.parametrize('name', ['classifier_evm_t', 'segformer_evm_t', 'retinanet_evm_t'])
def test_data_for_another_task_is_refused(name: str, roots: dict[str, Path]) -> None:
    cfg = load_config(PATHS[name])
    for scope, root in roots.items():
        if scope != cfg.default_scope:
            with pytest.raises(UsageError, match=rf'is a config for .*and {root} has .*\. Take a config for'):
                check_fit(cfg, read_data(root), name)


DETECTION = {
    'COCO': lambda root: layouts.write_coco(root, {'train2017': 2}),
    'Roboflow': lambda root: layouts.write_roboflow(root, {'train': 2}),
    'YOLO': lambda root: layouts.write_yolo(root, BOTH),
    'VOC': lambda root: layouts.write_voc(root, BOTH),
    'masks': lambda root: layouts.write_masks(root, BOTH),
}


@pytest.mark.parametrize('write', DETECTION.values(), ids=DETECTION)
def test_no_other_layout_passes_for_class_folders(write: Callable, tmp_path: Path) -> None:
    assert read_data(write(tmp_path), 'classification').kind != 'classification'


def test_boxes_do_not_train_masks_but_masks_train_boxes(tmp_path: Path) -> None:
    data = read_data(layouts.write_yolo(tmp_path / 'a', BOTH))
    check_fit(load_config(PATHS['mask_rcnn_evm_t_1x']), data, 'config.py')
    assert 'needs polygons, and the annotations are boxes only' in (refusal(data) or '')
    mixed = layouts.write_yolo(tmp_path / 'b', BOTH, polygons=True)
    (mixed / 'labels/train/0001.txt').write_text(layouts.yolo_line(layouts.boxes(1)[0]))
    data = read_data(mixed)
    check_fit(load_config(PATHS['rtmdet_ins_evm_t']), data, 'config.py')
    assert '0001.txt, line 1' in (refusal(data) or '') and '0002' not in (refusal(data) or '')
    cfg = load_config(PATHS['mask_rcnn_evm_t_1x'], {'model.roi_head.mask_head': None})
    adapted(cfg, read_data(layouts.write_yolo(tmp_path / 'c', BOTH)), tmp_path / 'out')
    assert all(not step.get('with_mask') for _, step in parts(cfg.train_dataloader, ''))
    assert cfg.val_evaluator.metric == ['bbox']


def test_polygons_stay_polygons(tmp_path: Path) -> None:
    data = read_data(layouts.write_coco(tmp_path / 'data', BOTH))
    cfg = adapted(load_config(PATHS['rtmdet_ins_evm_t']), data, tmp_path / 'out')
    loading = [step for _, step in parts(cfg.train_dataloader, '') if step.get('with_mask')]
    assert loading and not any(step['poly2mask'] for step in loading)


def test_the_best_checkpoint_is_not_that_of_a_metric_that_is_gone(roots: dict[str, Path], tmp_path: Path) -> None:
    changes = {'model.roi_head.mask_head': None, 'default_hooks.checkpoint.save_best': 'coco/segm_mAP'}
    cfg = load_config(PATHS['mask_rcnn_evm_t_1x'], changes)
    data = read_data(roots['mmdet'])
    adapted(cfg, data, tmp_path)
    assert cfg.default_hooks.checkpoint.save_best == 'auto'
    assert any("save_best='coco/segm_mAP'" in note for note in data.findings.notes)
    kept = load_config(PATHS['mask_rcnn_evm_t_1x'], {'default_hooks.checkpoint.save_best': 'coco/segm_mAP'})
    adapted(kept, read_data(roots['mmdet']), tmp_path)
    assert kept.default_hooks.checkpoint.save_best == 'coco/segm_mAP'


def test_a_split_smaller_than_a_batch(roots: dict[str, Path]) -> None:
    for drops, expected in ((False, None), (True, 'fewer than a batch of 128, which drop_last leaves out')):
        cfg, data = load_config(PATHS['classifier_evm_t']), read_data(roots['mmpretrain'])
        cfg.train_dataloader.drop_last = drops
        check_fit(cfg, data, 'config.py')
        assert expected in (refusal(data) or '') if expected else refusal(data) is None
        assert drops or any('12 images, fewer than a batch of 128' in note for note in data.findings.notes)


def test_panoptic_configs_and_other_libraries_are_refused(roots: dict[str, Path]) -> None:
    cfg = detector(leaf())
    cfg.train_dataloader.dataset.pipeline = [dict(type='LoadPanopticAnnotations')]
    with pytest.raises(UsageError, match='LoadPanopticAnnotations in train_dataloader.dataset.pipeline.0'):
        require_task(cfg, 'config.py')
    with pytest.raises(UsageError, match='needs a config of mmdet, mmseg or mmpretrain'):
        require_task(Config(dict(default_scope='mmpose')), 'config.py')


def test_an_evaluation_numbers_classes_as_the_model_does(roots: dict[str, Path], tmp_path: Path) -> None:
    data = read_data(roots['mmdet'], trained='')
    before = {t.source: data.classes[t.category] for s in data.samples() for t in s.things}
    match_classes(data, ['emu', 'owl', 'dog', 'cat'])
    assert {t.source: data.classes[t.category] for s in data.samples() for t in s.things} == before
    other = read_data(roots['mmdet'], trained='')
    match_classes(other, ['cat', 'dog', 'owls'])
    assert "'owl' (model: 'owls')" in (refusal(other) or '')


def test_an_undivided_dataset_is_evaluated_whole_unless_it_was_trained_on(tmp_path: Path) -> None:
    root = layouts.write_folders(tmp_path, {'': 5})
    assert len(list(read_data(root, trained='').samples())) == 15
    held_out = [sample.path for sample in read_data(root, trained=f'data_root={str(root)!r}').samples()]
    assert held_out == [sample.path for sample in read_data(root).splits['val'].samples]


def test_a_file_of_test_images_is_evaluated_whole(tmp_path: Path) -> None:
    root = layouts.write_coco(tmp_path, {'train2017': 4, 'test2017': 3})
    data = read_data(root / 'annotations/instances_test2017.json', trained=f'data_root={str(root)!r}')
    assert [len(split.samples) for split in data.splits.values()] == [3]


def test_a_test_split_without_annotations_is_left_out(tmp_path: Path) -> None:
    root = layouts.write_yolo(tmp_path, {**BOTH, 'test': 3})
    for path in (root / 'labels/test').iterdir():
        path.unlink()
    data = read_data(root)
    assert refusal(data) is None and set(data.splits) == {'train', 'val'}
    assert 'The test split has no annotations and is left out' in data.findings.notes


def test_no_run_changes_the_files_of_another(roots: dict[str, Path], tmp_path: Path) -> None:
    cfg = load_config(PATHS['retinanet_evm_t'])
    one = adapted(copy.deepcopy(cfg), read_data(roots['mmdet']), tmp_path)
    written = {path: path.read_bytes() for path in tmp_path.iterdir()}
    other = layouts.write_yolo(tmp_path.parent / f'{tmp_path.name}_other', {'train': 5, 'val': 2})
    two = adapted(copy.deepcopy(cfg), read_data(other), tmp_path)
    assert one.train_dataloader.dataset.ann_file != two.train_dataloader.dataset.ann_file
    assert all(path.read_bytes() == content for path, content in written.items())
