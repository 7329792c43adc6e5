"""`compare_counts`: every key that states a number of classes is named before a model is built."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from mmengine.config import Config, DictAction

from mmevm.apis.evaluate import main as run_test
from mmevm.apis.train import main as run_train
from mmevm.engine.checks.class_counts import compare_counts
from mmevm.engine.checks.class_lists import Report, class_lists
from mmevm.errors import UsageError

from .conftest import ROOT, our_config

pytestmark = pytest.mark.openmmlab

PHASES = ('train', 'val')


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """Three classes as folders, with one file each, and a hidden folder."""
    for phase in ('train', 'val'):
        for name in ('ant', 'bee', 'cat', '.cache'):
            (tmp_path / phase / name).mkdir(parents=True)
            (tmp_path / phase / name / 'a.png').write_bytes(b'')
    return tmp_path


def own_data(root: Path, **dataset: Any) -> Config:
    """configs/classifier_evm_t.py with a user's own folders in place of ImageNet."""
    cfg = our_config('classifier_evm_t')
    for phase in ('train', 'val', 'test'):
        own = dict(type='CustomDataset', data_root=str(root), data_prefix='train' if phase == 'train' else 'val')
        cfg[f'{phase}_dataloader'].dataset = dict(own, pipeline=[], **dataset)
    return cfg


def check(cfg: Config, phases: tuple[str, ...]) -> None:
    message = compare_counts(cfg, phases, class_lists(cfg, phases, Report()))
    if message:
        raise UsageError(message)


def refusal(cfg: Config, phases: tuple[str, ...] = PHASES) -> str:
    with pytest.raises(UsageError) as error:
        check(cfg, phases)
    return str(error.value)


def advice(message: str) -> dict[str, Any]:
    """The changes that a message advises, as the command line would read them."""
    options = shlex.split(message.partition('--cfg-options ')[2])
    return {key: DictAction._parse_iterable(value) for key, _, value in (option.partition('=') for option in options)}


def test_everything_that_states_a_number_is_named_and_the_advice_is_taken(folders: Path) -> None:
    cfg = own_data(folders)
    message = refusal(cfg)
    assert re.findall(r'^  (\S+).*: (.+)$', message, re.MULTILINE) == [
        ('model.head.num_classes', '1000'),
        ('data_preprocessor.num_classes', '1000'),
        ('train_dataloader.dataset', '3'),
        ('val_dataloader.dataset', '3'),
        ('val_evaluator.topk', '[1, 5]'),
    ]
    changes = advice(message)
    assert changes == {'model.head.num_classes': 3, 'data_preprocessor.num_classes': 3, 'val_evaluator.topk': [1]}
    cfg.merge_from_dict(changes)
    check(cfg, PHASES)


@pytest.mark.parametrize(
    'changes, dataset, keys',
    [
        ({'model.head.num_classes': 3}, {}, ['data_preprocessor.num_classes', 'val_evaluator.topk']),
        ({'data_preprocessor.num_classes': 3}, {}, ['model.head.num_classes', 'val_evaluator.topk']),
        (
            {},
            {'classes': ['ant', 'bee', 'cat']},
            ['model.head.num_classes', 'data_preprocessor.num_classes', 'val_evaluator.topk'],
        ),
        (
            {},
            {'metainfo': {'classes': ('ant', 'bee', 'cat')}, 'ann_file': 'a.txt'},
            ['model.head.num_classes', 'data_preprocessor.num_classes', 'val_evaluator.topk'],
        ),
        (
            {'model.data_preprocessor': {'num_classes': 7}},
            {},
            ['model.head.num_classes', 'model.data_preprocessor.num_classes', 'val_evaluator.topk'],
        ),
        (
            {'model.head.loss.num_classes': 1000},
            {},
            [
                'model.head.num_classes',
                'model.head.loss.num_classes',
                'data_preprocessor.num_classes',
                'val_evaluator.topk',
            ],
        ),
        (
            {'model.head.cal_acc': True},
            {},
            ['model.head.num_classes', 'data_preprocessor.num_classes', 'model.head.topk', 'val_evaluator.topk'],
        ),
        (
            {'val_evaluator': [{'type': 'Accuracy', 'topk': 4}, {'type': 'ConfusionMatrix', 'num_classes': 9}]},
            {},
            [
                'model.head.num_classes',
                'data_preprocessor.num_classes',
                'val_evaluator.1.num_classes',
                'val_evaluator.0.topk',
            ],
        ),
    ],
)
def test_what_differs_is_advised_and_then_passes(folders: Path, changes: dict, dataset: dict, keys: list[str]) -> None:
    cfg = own_data(folders, **dataset)
    cfg.merge_from_dict(changes)
    found = advice(refusal(cfg))
    assert list(found) == keys
    cfg.merge_from_dict(found)
    check(cfg, PHASES)


def test_names_and_folders_that_differ_are_both_named(folders: Path) -> None:
    cfg = own_data(folders, classes=['ant', 'bee'])
    message = refusal(cfg)
    assert 'train_dataloader.dataset.classes: 2' in message
    assert f'folders in {folders}/train: 3' in message


def test_a_class_list_in_a_file_counts_its_lines(folders: Path) -> None:
    (folders / 'classes.txt').write_text('ant\nbee\n')
    assert 'train_dataloader.dataset.classes: 2' in refusal(own_data(folders, classes=str(folders / 'classes.txt')))


def test_class_weights_count(folders: Path) -> None:
    cfg = own_data(folders)
    cfg.merge_from_dict(
        {
            'model.head.num_classes': 3,
            'data_preprocessor.num_classes': 3,
            'val_evaluator.topk': (1,),
            'model.head.loss': dict(type='CrossEntropyLoss', class_weight=[1.0, 2.0]),
        }
    )
    assert 'model.head.loss.class_weight: 2' in refusal(cfg)


def test_data_sets_with_labels_of_their_own_are_bound_to_them() -> None:
    cfg = own_data(Path('nowhere'))
    cifar = dict(type='CIFAR10', data_root='data', split='train')
    cfg.train_dataloader.dataset = dict(type='RepeatDataset', times=2, dataset=cifar)
    assert advice(refusal(cfg, ('train',))) == {'model.head.num_classes': 10, 'data_preprocessor.num_classes': 10}


def test_labels_in_files_may_be_fewer_than_imagenets() -> None:
    cfg = our_config('classifier_evm_t')
    cfg.merge_from_dict({'model.head.num_classes': 10, 'data_preprocessor.num_classes': 10})
    check(cfg, PHASES)
    cfg.data_preprocessor.num_classes = 1000
    assert advice(refusal(cfg)) == {'data_preprocessor.num_classes': 10}


def test_preprocessor_counts_only_where_labels_are_mixed(folders: Path) -> None:
    cfg = own_data(folders)
    cfg.merge_from_dict({'model.head.num_classes': 3, 'val_evaluator.topk': 1, 'model.train_cfg': None})
    check(cfg, PHASES)
    cfg.data_preprocessor.to_onehot = True
    assert advice(refusal(cfg)) == {'data_preprocessor.num_classes': 3}
    check(cfg, ('val',))  # nor is it asked outside of training


@pytest.mark.parametrize('path', sorted((ROOT / 'configs').glob('*classifier*.py')), ids=lambda path: path.stem)
def test_our_configs_agree(path: Path) -> None:
    check(our_config(path.stem), ('train', 'val', 'test'))


def test_other_configs_pass() -> None:
    check(our_config('retinanet_evm_t'), PHASES)
    masked = dict(type='MAE', head=dict(type='MAEHead'))
    check(Config(dict(default_scope='mmpretrain', model=masked)), PHASES)
    check(Config(dict(default_scope='mmpretrain')), PHASES)


@pytest.mark.parametrize('run', [run_train, run_test], ids=['train', 'test'])
def test_tools_say_it_before_a_model_is_built(
    run: Any, folders: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(folders)
    (folders / 'mine.py').write_text(
        f'_base_ = {str(ROOT / "configs/classifier_evm_t.py")!r}\n'
        "own = dict(_delete_=True, type='CustomDataset', data_root='.', data_prefix='train', pipeline=[])\n"
        'train_dataloader = dict(dataset=own)\nval_dataloader = dict(dataset=own)\ntest_dataloader = val_dataloader\n'
    )
    (folders / 'a.pth').write_bytes(b'')
    assert run(['mine.py'] if run is run_train else ['mine.py', 'a.pth']) == 2
    error = capsys.readouterr().err
    assert 'model.head.num_classes: 1000' in error and '_dataloader.dataset (CustomDataset), folders in' in error
    assert not (folders / 'work_dirs').exists()
