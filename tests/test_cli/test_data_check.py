"""`mmevm.cli.data`: which paths a config needs, what is said when they are absent, and moving them."""

from pathlib import Path

import pytest
from mmengine.config import Config

from mmevm.cli.data import check_data, leaf_datasets, missing_paths, move_data_root
from mmevm.cli.errors import UsageError

pytestmark = pytest.mark.openmmlab


def coco_like(root: str) -> Config:
    dataset = dict(type='CocoDataset', data_root=root, ann_file='annotations/train.json',
                   data_prefix=dict(img='train2017/'), pipeline=[dict(type='Load', path=f'{root}/x')])
    return Config(dict(
        default_scope='mmdet', data_root=root,
        train_dataloader=dict(dataset=dict(type='RepeatDataset', times=2, dataset=dict(
            type='ConcatDataset', datasets=[dataset, dict(dataset, ann_file='annotations/more.json')]))),
        val_dataloader=dict(dataset=dict(dataset, ann_file='annotations/val.json')),
        val_evaluator=dict(type='CocoMetric', ann_file=f'{root}/annotations/val.json')))


def test_leaf_datasets_looks_into_wrappers() -> None:
    cfg = coco_like('/data/coco')
    files = [dataset['ann_file'] for dataset in leaf_datasets(cfg.train_dataloader.dataset)]
    assert files == ['annotations/train.json', 'annotations/more.json']


def test_missing_paths_lists_each_absent_file_and_folder_once(tmp_path: Path) -> None:
    (tmp_path / 'annotations').mkdir()
    (tmp_path / 'annotations/train.json').touch()
    cfg = coco_like(str(tmp_path))
    assert missing_paths(cfg, ['train']) == [f'{tmp_path}/train2017', f'{tmp_path}/annotations/more.json']
    assert missing_paths(cfg, ['val']) == [f'{tmp_path}/annotations/val.json', f'{tmp_path}/train2017']


def test_missing_paths_reads_the_other_libraries_forms(tmp_path: Path) -> None:
    ade = dict(data_root=str(tmp_path), data_prefix=dict(img_path='images/training', seg_map_path='annotations'))
    imagenet = dict(type='ImageNet', data_root=str(tmp_path), split='train')
    cfg = Config(dict(train_dataloader=dict(dataset=ade), val_dataloader=dict(dataset=imagenet)))
    assert missing_paths(cfg, ['train', 'val']) == [
        f'{tmp_path}/images/training', f'{tmp_path}/annotations', f'{tmp_path}/train']


@pytest.mark.parametrize('dataset', [
    dict(type='CocoDataset', data_root='s3://bucket/coco', ann_file='a.json'),
    dict(type='CocoDataset', data_root='data/x', ann_file='a.json', backend_args=dict(backend='petrel')),
    dict(type='CIFAR10', data_root='data/x', data_prefix='y'),
], ids=['address', 'backend', 'downloads-itself'])
def test_missing_paths_passes_over_what_is_not_local(dataset: dict) -> None:
    assert missing_paths(Config(dict(train_dataloader=dict(dataset=dataset))), ['train']) == []


def test_check_data_says_where_how_to_get_it_and_how_to_make_miniature_data(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        check_data(coco_like(f'{tmp_path}/coco'), ['train'], 'python tools/train.py c.py')
    lines = str(caught.value).splitlines()
    assert f'  missing: {tmp_path}/coco/annotations/train.json' in lines
    assert any('cocodataset.org' in line and 'mim download mmdet --dataset coco2017' in line for line in lines)
    assert '  python tools/make_mini_data.py --out data/mini' in lines
    assert '  python tools/train.py c.py --cfg-options data_root=data/mini/coco' in lines


def test_move_data_root_moves_data_sets_and_evaluators_alone() -> None:
    cfg = coco_like('data/coco/')
    move_data_root(cfg, '/elsewhere')
    train = list(leaf_datasets(cfg.train_dataloader.dataset))
    assert [dataset.data_root for dataset in train] == ['/elsewhere/'] * 2
    assert cfg.val_evaluator.ann_file == '/elsewhere/annotations/val.json'
    assert train[0].pipeline[0].path == 'data/coco//x'


def test_move_data_root_needs_exactly_one_root() -> None:
    cfg = coco_like('data/coco')
    cfg.val_dataloader.dataset.data_root = 'data/other'
    with pytest.raises(UsageError, match=r"got \['data/coco', 'data/other'\]"):
        move_data_root(cfg, '/elsewhere')
