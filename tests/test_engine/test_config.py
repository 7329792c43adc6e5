"""`mmevm.engine.config`: configs of every style are read, and what cannot be read is refused."""

from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config, ConfigDict
from mmengine.dataset import DefaultSampler
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, Runner

from mmevm.apis import train as train_tool
from mmevm.engine.config import load_config, read_config, set_loaders
from mmevm.engine.runner.resume import make_resumable
from mmevm.errors import UsageError
from mmevm.registry import scope_of, type_name

ROOT = Path(__file__).resolve().parents[2]


class OwnLoop(EpochBasedTrainLoop):
    """A user's own loop, which is no loop of MMEngine's."""


# Every way to name a class in a config.
AMP = ('AmpOptimWrapper', 'mmengine.AmpOptimWrapper', 'mmengine.optim.optimizer.AmpOptimWrapper', AmpOptimWrapper)


@pytest.mark.parametrize(
    'settings, expected',
    [
        *(({'type': kind}, 'AmpOptimWrapper') for kind in AMP),
        (ConfigDict(type=torch.nn.GELU), 'GELU'),
        ({'type': torch.nn.functional.gelu}, 'gelu'),
        ({}, 'default'),
        (None, 'default'),
        ('text', 'default'),
    ],
)
def test_type_name_takes_every_spelling(settings: Any, expected: str) -> None:
    assert type_name(settings, 'default') == expected


@pytest.mark.parametrize('kind', AMP)
def test_mixed_precision_is_left_on_the_cpu(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train_tool, 'on_cpu', lambda: True)
    cfg = Config(dict(optim_wrapper=dict(type=kind, loss_scale='dynamic', optimizer=dict(type='SGD', lr=1.0))))
    train_tool._drop_amp_on_cpu(cfg)
    assert cfg.optim_wrapper == dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=1.0))


@pytest.mark.parametrize('kind', ['OptimWrapper', 'mmengine.OptimWrapper', OptimWrapper, *AMP])
def test_amp_takes_every_spelling_of_its_wrappers(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train_tool, 'on_cpu', lambda: False)
    cfg = Config(dict(optim_wrapper=dict(type=kind)))
    train_tool._set_amp(cfg)
    assert cfg.optim_wrapper == dict(type='AmpOptimWrapper', loss_scale='dynamic')


def test_amp_refuses_other_wrappers_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train_tool, 'on_cpu', lambda: False)
    with pytest.raises(UsageError, match='got OwnLoop'):
        train_tool._set_amp(Config(dict(optim_wrapper=dict(type=OwnLoop))))


@pytest.mark.parametrize(
    'kind, expected',
    [
        ('EpochBasedTrainLoop', 'ResumableEpochLoop'),
        ('mmengine.EpochBasedTrainLoop', 'ResumableEpochLoop'),
        (EpochBasedTrainLoop, 'ResumableEpochLoop'),
        (IterBasedTrainLoop, 'ResumableIterLoop'),
        (OwnLoop, 'OwnLoop'),
    ],
)
def test_loops_become_resumable_however_they_are_named(kind: Any, expected: str) -> None:
    cfg = Config(dict(train_cfg=dict(type=kind, max_epochs=3)))
    make_resumable(cfg)
    assert type_name(cfg.train_cfg) == expected


LOADER = dict(batch_size=2, dataset=dict(type='ImageNet'), sampler=dict(type='DefaultSampler', shuffle=True))


@pytest.mark.parametrize('scope', ['mmdet', 'mmseg', 'mmpretrain'])
@pytest.mark.parametrize('workers', [dict(num_workers=0), {}], ids=['0', 'default'])
def test_loaders_without_workers_have_no_options_of_workers(scope: str, workers: dict) -> None:
    refused = dict(persistent_workers=True, prefetch_factor=4, timeout=60, multiprocessing_context='spawn')
    cfg = Config(dict(default_scope=scope, train_dataloader={**LOADER, **workers, **refused}))
    set_loaders(cfg)
    assert not set(refused) & set(cfg.train_dataloader)
    cfg.train_dataloader.update(dataset=list('abc'), sampler=dict(type=DefaultSampler, shuffle=False))
    batches = [batch for batch in Runner.build_dataloader(cfg.train_dataloader)]
    assert [len(batch) for batch in batches] == [2, 1]


def test_loaders_with_workers_keep_their_options() -> None:
    options = dict(num_workers=2, persistent_workers=True, prefetch_factor=4, timeout=60)
    cfg = Config(dict(default_scope='mmdet', train_dataloader={**LOADER, **options}))
    set_loaders(cfg)
    assert cfg.train_dataloader == {**LOADER, **options}


@pytest.mark.openmmlab
@pytest.mark.parametrize('name', ['upernet_evm_t', 'classifier_evm_t', 'retinanet_evm_t'])
def test_our_configs_take_no_workers_as_an_option(name: str) -> None:
    options = [f'{phase}_dataloader.num_workers=0' for phase in ('train', 'val', 'test')]
    cfg = load_config(ROOT / f'configs/{name}.py', dict(option.split('=') for option in options))
    assert not any(cfg[f'{phase}_dataloader'].get('persistent_workers') for phase in ('train', 'val', 'test'))


@pytest.mark.openmmlab
def test_scope_of_follows_the_models_class() -> None:
    from mmpretrain.models import ImageClassifier
    from mmseg.models import EncoderDecoder

    class Mine(EncoderDecoder):
        pass

    expected = {
        Mine: 'mmseg',
        ImageClassifier: 'mmpretrain',
        'mmdet.models.RetinaNet': 'mmdet',
        'mmdet.RetinaNet': 'mmdet',
        'RetinaNet': None,
        torch.nn.Linear: None,
    }
    for kind, scope in expected.items():
        assert scope_of(Config(dict(default_scope=None, model=dict(type=kind)))) == scope
    assert scope_of(Config(dict(default_scope='mmseg', model=dict(type=ImageClassifier)))) == 'mmseg'
    assert scope_of(Config(dict())) is None


@pytest.mark.parametrize(
    'text, message',
    [
        ('model = dict(', r'SyntaxError'),
        ('a = b', "NameError: name 'b' is not defined"),
        ("_base_ = 'absent.py'", r'FileNotFoundError.*absent\.py'),
        ("_base_ = 'mmfoo::a/b.py'", 'does not support to load mmfoo config'),
        ("custom_imports = dict(imports=['no_such_module'], allow_failed_imports=False)", 'no_such_module'),
        ("default_scope = 'mmrotate'", 'needs mmrotate'),
    ],
)
def test_a_config_that_cannot_be_read_is_an_error_of_use(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / 'mine.py'
    path.write_text(text)
    with pytest.raises(UsageError, match=message):
        read_config(path)


def test_a_class_that_a_library_lacks_is_named_at_once(tmp_path: Path) -> None:
    (tmp_path / 'new.py').write_text("""
from mmengine.config import read_base
from mmengine.model import BaseModel, NoSuchModel

default_scope = None
model = dict(type=BaseModel, head=dict(type=NoSuchModel))
""")
    with pytest.raises(UsageError, match=r'cannot be read: Failed to import NoSuchModel .*line 3'):
        read_config(tmp_path / 'new.py')
