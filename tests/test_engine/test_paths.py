"""`mmevm.engine.checks.paths`: which paths a config needs, the message when they are missing, and moving them."""

import re
from pathlib import Path
from typing import Any

import pytest
from mmengine.config import Config

from mmevm.engine.checks.datasets import leaves
from mmevm.engine.checks.paths import check_data, move_data_root
from mmevm.errors import UsageError

pytestmark = pytest.mark.openmmlab


def coco_like(root: str) -> Config:
    dataset = dict(
        type='CocoDataset',
        data_root=root,
        ann_file='annotations/train.json',
        data_prefix=dict(img='train2017/'),
        pipeline=[dict(type='Load', path=f'{root}/x')],
    )
    return Config(
        dict(
            default_scope='mmdet',
            data_root=root,
            train_dataloader=dict(
                dataset=dict(
                    type='RepeatDataset',
                    times=2,
                    dataset=dict(
                        type='ConcatDataset', datasets=[dataset, dict(dataset, ann_file='annotations/more.json')]
                    ),
                )
            ),
            val_dataloader=dict(dataset=dict(dataset, ann_file='annotations/val.json')),
            val_evaluator=dict(type='CocoMetric', ann_file=f'{root}/annotations/val.json'),
        )
    )


def missing_paths(cfg: Config, phases: list[str]) -> list[str]:
    """The paths that :func:`check_data` reports as missing."""
    try:
        check_data(cfg, phases, '')
    except UsageError as error:
        return re.findall(r'^  missing: (\S+)', str(error), re.MULTILINE)
    return []


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
        f'{tmp_path}/images/training',
        f'{tmp_path}/annotations',
        f'{tmp_path}/train',
    ]


@pytest.mark.parametrize(
    'dataset',
    [
        dict(type='CocoDataset', data_root='s3://bucket/coco', ann_file='a.json'),
        dict(type='CocoDataset', data_root='data/x', ann_file='a.json', backend_args=dict(backend='petrel')),
        dict(type='ImageNet', data_root='data/x', pipeline=[dict(type='Load', backend_args=dict(backend='petrel'))]),
        dict(type='CIFAR10', data_root='data/x', data_prefix='y'),
    ],
    ids=['address', 'backend', 'backend-of-the-pipeline', 'downloads-itself'],
)
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
    train = [leaf.settings for leaf in leaves(cfg, ['train'])]
    assert [dataset.data_root for dataset in train] == ['/elsewhere/'] * 2
    assert cfg.val_evaluator.ann_file == '/elsewhere/annotations/val.json'
    assert train[0].pipeline[0].path == 'data/coco//x'


def test_move_data_root_needs_exactly_one_root() -> None:
    cfg = coco_like('data/coco')
    cfg.val_dataloader.dataset.data_root = 'data/other'
    with pytest.raises(UsageError, match=r"got \['data/coco', 'data/other'\]"):
        move_data_root(cfg, '/elsewhere')


def needs(root: Path, scope: str, **dataset: Any) -> list[str]:
    """What is missing of a dataset, relative to its absent root."""
    cfg = Config(dict(default_scope=scope, train_dataloader=dict(dataset=dict(dataset, data_root=f'{root}/absent'))))
    return [path.removeprefix(f'{root}/absent') for path in missing_paths(cfg, ['train'])]


@pytest.mark.parametrize(
    ('dataset', 'paths'),
    [
        (
            dict(type='CUB', split='train'),
            ['/images.txt', '/images', '/image_class_labels.txt', '/train_test_split.txt'],
        ),
        (dict(type='Flowers102', split='trainval'), ['/imagelabels.mat', '/jpg', '/setid.mat']),
        (dict(type='mmpretrain.Food101', split='test'), ['/meta/test.txt', '/images']),
        (dict(type='OxfordIIITPet', split='trainval'), ['/annotations/trainval.txt', '/images']),
        (dict(type='VOC', split='trainval'), ['/JPEGImages', '/Annotations', '/ImageSets/Main/trainval.txt']),
        (dict(type='ImageNet', split='train'), ['/train']),
        (dict(type='StanfordCars', split='train'), ['']),
        (dict(type='CustomDataset', data_prefix='train'), ['/train']),
        (dict(type='CustomDataset', ann_file='train.txt', data_prefix=dict(img_path='x')), ['/train.txt', '/x']),
        (dict(type='InShop', split='query'), ['/Eval/list_eval_partition.txt', '/Img']),
    ],
    ids=lambda value: value.get('type') if isinstance(value, dict) else '',
)
def test_a_split_is_what_the_class_makes_of_it(tmp_path: Path, dataset: dict, paths: list[str]) -> None:
    found = needs(tmp_path, 'mmpretrain', **dataset)
    assert found == paths


@pytest.mark.parametrize(
    'dataset',
    [
        dict(type='CocoDataset', ann_file='a.json', data_prefix=dict(img='x/', seg='y/'), indices=4, lazy_init=True),
        dict(type='mmdet.CocoPanopticDataset', ann_file='a.json', data_prefix=dict(img='x/', seg='y/')),
        dict(
            type='OpenImagesDataset',
            ann_file='a.json',
            data_prefix=dict(img='x/'),
            label_file='y/',
            meta_file='y/',
            hierarchy_file='y/',
        ),
    ],
    ids=lambda dataset: dataset['type'],
)
def test_paths_of_detection_datasets(tmp_path: Path, dataset: dict) -> None:
    assert needs(tmp_path, 'mmdet', **dataset) == ['/a.json', '/x', '/y']


def test_a_pascal_voc_root_and_absolute_paths(tmp_path: Path) -> None:
    dataset = dict(type='VOCDataset', ann_file='VOC2007/train.txt', data_prefix=dict(sub_data_root='VOC2007/'))
    assert needs(tmp_path, 'mmdet', **dataset) == ['/VOC2007/train.txt', '/VOC2007']
    dataset = dict(type='CocoDataset', ann_file='/there/a.json', data_prefix=dict(img='/there/x'))
    assert needs(tmp_path, 'mmdet', **dataset) == ['/there/a.json', '/there/x']
    assert needs(tmp_path, 'mmdet', type='CocoDataset', data_prefix=dict(img='s3://x'), ann_file='a') == ['/a']


@pytest.mark.parametrize('kind', ['mmpretrain.CIFAR10', 'mmpretrain.FashionMNIST', 'MNIST', 'CIFAR100'])
def test_datasets_that_download_themselves_need_nothing(tmp_path: Path, kind: str) -> None:
    assert needs(tmp_path, 'mmpretrain', type=kind, split='test') == []
    assert needs(tmp_path, 'mmpretrain', type=kind, split='test', download=False) == ['']


def test_types_may_be_classes_and_subclasses_of_a_user(tmp_path: Path) -> None:
    from mmpretrain.datasets import CIFAR10, CUB

    class Birds(CUB):
        pass

    class Own(CIFAR10):
        pass

    assert needs(tmp_path, 'mmpretrain', type=CIFAR10) == needs(tmp_path, 'mmpretrain', type=Own) == []
    assert needs(tmp_path, 'mmpretrain', type=Birds)[:2] == ['/images.txt', '/images']


def test_of_unknown_classes_only_what_exists_neither_way_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Own:
        """No dataset of MMEngine's: whether it joins the root with the rest is its own affair."""

    monkeypatch.chdir(tmp_path)
    (tmp_path / 'root').mkdir()
    (tmp_path / 'root/inside.txt').touch()
    (tmp_path / 'beside.txt').touch()
    cfg = Config(
        dict(
            train_dataloader=[
                dict(dataset=dict(type=Own, data_root='root', ann_file=name, split='train'))
                for name in ('inside.txt', 'beside.txt', 'neither.txt')
            ]
        )
    )
    assert missing_paths(cfg, ['train']) == [f'{tmp_path}/root/neither.txt']
    cfg.train_dataloader = dict(dataset=dict(type=Own, data_root='elsewhere', download=True))
    assert missing_paths(cfg, ['train']) == []


@pytest.mark.parametrize(
    'wrap',
    [
        lambda dataset: dict(type='RepeatDataset', times=3, dataset=dataset),
        lambda dataset: dict(type='ClassBalancedDataset', oversample_thr=0.1, dataset=dataset),
        lambda dataset: dict(type='KFoldDataset', fold=0, dataset=dataset),
        lambda dataset: dict(type='ConcatDataset', datasets=[dataset, dataset]),
        lambda dataset: dict(type='RepeatDataset', dataset=dict(type='ConcatDataset', datasets=[dataset])),
    ],
)
def test_wrappers_are_looked_into(tmp_path: Path, wrap: Any) -> None:
    inner = dict(type='Food101', split='train', data_root=str(tmp_path))
    cfg = Config(dict(default_scope='mmpretrain', test_dataloader=dict(dataset=wrap(inner))))
    assert missing_paths(cfg, ['test']) == [f'{tmp_path}/meta/train.txt', f'{tmp_path}/images']


def test_metrics_inside_of_lists_and_wrappers(tmp_path: Path) -> None:
    metrics = [dict(type='CocoMetric', ann_file=f'{tmp_path}/a.json'), dict(type='CocoMetric', ann_file='s3://b/a')]
    cfg = Config(
        dict(
            val_evaluator=metrics,
            test_evaluator=dict(
                type='Evaluator',
                metrics=[dict(type='CocoPanopticMetric', ann_file=f'{tmp_path}/b.json', seg_prefix=f'{tmp_path}/c')],
            ),
        )
    )
    assert missing_paths(cfg, ['val', 'test']) == [f'{tmp_path}/{name}' for name in ('a.json', 'b.json', 'c')]


def test_check_data_tells_files_from_folders_and_full_from_empty(tmp_path: Path) -> None:
    (tmp_path / 'a.json').mkdir()
    (tmp_path / 'b.json').touch()
    (tmp_path / 'images').mkdir()
    (tmp_path / 'file').write_text('x')
    dataset = dict(type='CocoDataset', data_root=str(tmp_path), ann_file='a.json', data_prefix=dict(img='images'))
    cfg = Config(
        dict(
            default_scope='mmdet',
            train_dataloader=dict(dataset=dataset),
            val_dataloader=dict(dataset=dict(dataset, ann_file='b.json', data_prefix=dict(img='file'))),
        )
    )
    with pytest.raises(UsageError) as caught:
        check_data(cfg, ['train', 'val'], '')
    assert [line.strip() for line in str(caught.value).splitlines()][1:5] == [
        f'not a file: {tmp_path}/a.json',
        f'empty: {tmp_path}/images',
        f'empty: {tmp_path}/b.json',
        f'not a folder: {tmp_path}/file',
    ]


def test_check_data_names_a_metrics_setting_and_sends_nobody_to_another_dataset(tmp_path: Path) -> None:
    cfg = Config(
        dict(
            default_scope='mmpretrain',
            val_evaluator=dict(ann_file=f'{tmp_path}/a.json'),
            val_dataloader=dict(dataset=dict(type='CUB', data_root=f'{tmp_path}/cub')),
        )
    )
    with pytest.raises(UsageError) as caught:
        check_data(cfg, ['val'], '')
    assert f'  missing: {tmp_path}/a.json (val_evaluator.ann_file)' in str(caught.value).splitlines()
    assert 'image-net.org' not in str(caught.value) and 'make_mini_data' not in str(caught.value)


def test_move_data_root_takes_any_name_of_a_folder(tmp_path: Path) -> None:
    for root in ('/data/a, b [c]/', '2024', '/data/einÖrdner/数据', 'C:\\data'):
        cfg = coco_like('data/coco/')
        move_data_root(cfg, root)
        assert cfg.val_evaluator.ann_file == f'{root.rstrip("/")}/annotations/val.json'
        assert Config.fromstring(cfg.pretty_text, '.py').train_dataloader == cfg.train_dataloader
    with pytest.raises(UsageError, match='data_root needs a folder, got None'):
        move_data_root(coco_like('data/coco'), None)
