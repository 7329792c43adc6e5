"""`mmevm.engine.options`: what ``--cfg-options`` makes of paths, and of everything else."""

import os

import pytest
from mmengine.config import Config, DictAction

from mmevm.apis.arguments import parse_test_args, parse_train_args
from mmevm.engine.options import read_options
from mmevm.errors import UsageError

pytestmark = pytest.mark.openmmlab


def config() -> Config:
    dataset = dict(
        type='CocoDataset', data_root='data/coco/', ann_file='annotations/train.json', data_prefix=dict(img='train/')
    )
    return Config(
        dict(
            data_root='data/coco/',
            model=dict(
                drop_path=0.1, backbone=dict(out_indices=(0, 1), init_cfg=dict(type='Pretrained', checkpoint='a.pth'))
            ),
            optim_wrapper=dict(type='AmpOptimWrapper', loss_scale='dynamic', clip_grad=None),
            train_dataloader=dict(batch_size=2, dataset=dataset),
            val_evaluator=[dict(ann_file='data/coco/annotations/val.json', metric='bbox')],
            files=['a.txt', 'b.txt'],
        )
    )


def read(key: str, value: str) -> object:
    args = parse_train_args(['config.py', '--cfg-options', f'{key}={value}'])
    return read_options(args['cfg_options'], config())[key]


@pytest.mark.parametrize(
    'path',
    [
        '/data/my images',
        '/data/two  spaces/',
        '/data/einÖrdner/数据/é',
        '/data/a,b',
        'a, b',
        '2024',
        '007',
        '1e5',
        '/data/[old] (2)/x',
        '[x]',
        '(a,b)',
        '/data/(unclosed',
        "/data/it's",
        '/data/"quoted"/x',
        'C:\\data\\coco, 2024',
        '/data/a=b',
        's3://bucket/a,b',
    ],
)
@pytest.mark.parametrize(
    'key',
    [
        'data_root',
        'work_dir',
        'load_from',
        'train_dataloader.dataset.data_root',
        'train_dataloader.dataset.ann_file',
        'train_dataloader.dataset.data_prefix.img',
        'val_evaluator.0.ann_file',
        'model.backbone.init_cfg.checkpoint',
    ],
)
def test_paths_stay_as_they_are_typed(key: str, path: str) -> None:
    assert read(key, path) == path


@pytest.mark.parametrize(
    ('key', 'path'),
    [
        ('model.teacher_ckpt', 'a b.pth'),
        ('val_evaluator.0.outfile_prefix', 'out/a, b'),
        ('vis_backends.0.save_dir', '2024'),
        ('visualizer.anything', '/data/a,b'),
        ('val_evaluator.0.label_file', '12'),
    ],
)
def test_paths_that_the_config_does_not_have_yet(key: str, path: str) -> None:
    assert read(key, path) == path


def test_surrounding_quotes_and_a_tilde_are_resolved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('HOME', '/home/me')
    assert read('data_root', "'/data/a b'") == '/data/a b'
    assert read('data_root', '~/data/a, b') == '/home/me/data/a, b'
    assert parse_train_args(['c.py', '--work-dir=~/runs'])['work_dir'] == '/home/me/runs'


def test_quotes_of_a_folder_that_exists_stay(tmp_path: os.PathLike, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    os.mkdir("'a'")
    assert read('data_root', "'a'") == "'a'"


@pytest.mark.parametrize(
    ('key', 'value'),
    [
        ('train_dataloader.batch_size', '4'),
        ('optim_wrapper.optimizer.lr', '1e-3'),
        ('model.drop_path', '0.2'),
        ('model.backbone.drop_path', '0.2'),
        ('optim_wrapper.loss_scale', '512.'),
        ('optim_wrapper.clip_grad', 'None'),
        ('model.backbone.init_cfg.checkpoint', 'None'),
        ('load_from', 'None'),
        ('model.backbone.with_cp', 'true'),
        ('model.backbone.pretrained', 'False'),
        ('model.backbone.out_indices', '(0,1,2,3)'),
        ('model.backbone.out_indices', '( 0, 1 )'),
        ('val_evaluator.0.metric', '[bbox, segm]'),
        ('val_evaluator.0.metric', 'bbox,segm'),
        ('a', '[(1, 2), [a, b], c]'),
        ('train_dataloader.dataset.pipeline.2.scale', '(96,96)'),
        ('a', "'quoted'"),
        ('files', 'x.txt,y.txt'),
        ('files', '[/data/x.txt,/data/y.txt]'),
        ('new_files', '/data/x,/data/y'),
        ('train_dataloader.dataset.datasets', '[]'),
    ],
)
def test_everything_else_is_read_as_mmengine_reads_it(key: str, value: str) -> None:
    assert read(key, value) == DictAction._parse_iterable(value)
    assert type(read(key, value)) is type(DictAction._parse_iterable(value))


def test_spaces_inside_of_names_stay() -> None:
    assert read('metainfo.classes', "('traffic light', 'stop sign')") == ('traffic light', 'stop sign')
    assert read('metainfo.classes', '[traffic light,dog]') == ['traffic light', 'dog']
    assert read('visualizer.name', 'my run') == 'my run'


def test_options_of_several_flags_add_up_and_values_of_other_types_pass() -> None:
    args = parse_test_args(['c.py', 'x.pth', '--cfg-options', 'a=1', 'b=x=y', '--cfg-options', 'c=(1,2)'])
    assert read_options(args['cfg_options'], config()) == dict(a=1, b='x=y', c=(1, 2))
    assert read_options(dict(a=[1], b=None), config()) == dict(a=[1], b=None)


def test_unclosed_brackets_and_arguments_without_a_value_are_refused(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(UsageError, match=r'a=\[1,2 cannot be read'):
        read('a', '[1,2')
    with pytest.raises(SystemExit) as caught:
        parse_train_args(['c.py', '--cfg-options', 'data_root=/my', 'data'])
    assert caught.value.code == 2
    assert "expects KEY=VALUE, got 'data'. A value with spaces must be quoted" in capsys.readouterr().err
