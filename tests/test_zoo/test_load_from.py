"""Checkpoints through `tools/train.py` and `tools/test.py`: what fits is loaded, anything else refused at once."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from mmengine.logging import MessageHub
from torch import Tensor

from mmevm.apis import evaluate
from mmevm.apis import train as train_tool
from mmevm.backbones import EfficientVMamba
from mmevm.checkpoint.formats import to_classifier
from mmevm.engine.runner.resume import ResumableEpochLoop

from .conftest import EVM

pytestmark = [pytest.mark.openmmlab, pytest.mark.usefixtures('tools_in_process')]
NAME = f'mmevm://{EVM}'
Tool = Callable[..., int]


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> dict[str, Tensor]:
    """The weights with which a training starts, which goes no further; empty if none starts."""
    weights: dict[str, Tensor] = {}
    monkeypatch.setattr(ResumableEpochLoop, 'run', lambda loop: weights.update(loop.runner.model.state_dict()))
    return weights


@pytest.fixture
def train(config: str, started: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tool:
    """`tools/train.py` with changes to a config, up to the first picture."""
    monkeypatch.chdir(tmp_path)
    return lambda *options: train_tool.main([config, '--work-dir', 'work', '--cfg-options', *options])


SOURCES: dict[str, Callable[[dict], dict]] = {
    'released': lambda state: {'state_dict': {f'module.module.{name}': value for name, value in state.items()}},
    'compiled': lambda state: {'state_dict': {f'_orig_mod.{name}': value for name, value in state.items()}},
    'framework': lambda state: {
        'state_dict': {f'model.{name}': v for name, v in to_classifier(state).items()}
        | {'criterion.weight': torch.ones(1)},
        'epoch': 3,
    },
    'backbone': lambda state: {'model': {name: value for name, value in state.items() if 'head' not in name}},
}


def differing(started: dict[str, Tensor], state: dict[str, Tensor]) -> set[str]:
    """The weights of the classifier that are not those of ``state``."""
    expected = to_classifier(state)
    assert started.keys() == expected.keys()
    return {name for name, value in expected.items() if not torch.equal(started[name], value)}


@pytest.mark.parametrize('form', SOURCES.keys())
def test_train_starts_from_a_file_that_fits(form: str, train: Tool, started: dict, evm_state: dict) -> None:
    torch.save(SOURCES[form](evm_state), 'start.ckpt')
    assert train('load_from=start.ckpt') == 0
    assert differing(started, evm_state) == ({'head.fc.weight', 'head.fc.bias'} if form == 'backbone' else set())


def test_train_starts_from_a_name(train: Tool, started: dict, hub: str, evm_state: dict) -> None:
    assert train(f'load_from={NAME}') == 0
    assert differing(started, evm_state) == set()


def test_train_leaves_a_head_for_other_classes_to_be_trained_and_says_so(
    train: Tool, started: dict, evm_state: dict, capsys: pytest.CaptureFixture
) -> None:
    ten = {f'classifier.head.{name}': evm_state[f'classifier.head.{name}'][:10] for name in ('weight', 'bias')}
    torch.save(evm_state | ten, 'start.ckpt')
    assert train('load_from=start.ckpt') == 0
    assert differing(started, evm_state) == {'head.fc.weight', 'head.fc.bias'}
    logs = capsys.readouterr()
    assert re.search(r'2 of another shape: head\.fc\.(weight|bias) \(expected \[1000', logs.out + logs.err)
    assert 'start.ckpt: what differs in heads stays as initialised' in logs.out + logs.err


REFUSED: dict[str, tuple[Callable[[dict], dict], str]] = {
    'variant': (lambda _: EfficientVMamba('small').state_dict(), "it is the variant 'small'"),
    'norm': (lambda s: s | {'classifier.norm.bias': torch.zeros(10)}, r'outnorm3\.bias \(expected \[384\], got'),
}


@pytest.mark.parametrize('kind', REFUSED.keys())
def test_train_refuses_a_file_that_does_not_fit(
    kind: str, train: Tool, started: dict, evm_state: dict, capsys: pytest.CaptureFixture
) -> None:
    harm, message = REFUSED[kind]
    torch.save(harm(evm_state), 'start.ckpt')
    assert train('load_from=start.ckpt') == 2
    shown = capsys.readouterr().err
    assert re.search(rf'^start\.ckpt: .*does not fit(.|\n)*{message}(.|\n)*no more than its backbone', shown, re.M)
    assert started == {}


def test_train_takes_the_backbone_alone_as_its_refusal_advises(train: Tool, started: dict, evm_state: dict) -> None:
    torch.save(evm_state | {'classifier.head.bias': torch.zeros(10)}, 'start.ckpt')
    place = 'model.backbone.init_cfg'
    assert train('load_from=None', f'{place}.type=Pretrained', f'{place}.checkpoint=start.ckpt') == 0
    assert differing(started, evm_state) == {'head.fc.weight', 'head.fc.bias'}


UNFINISHED: dict[str, tuple[dict, str]] = {
    'backbone': ({'meta': {'epoch': 1}}, 'lacks 2 tensors of head, which would stay random'),
    'released': ({}, 'contains weights only; --resume needs a full training checkpoint'),
}


@pytest.mark.parametrize('form', UNFINISHED.keys())
def test_train_does_not_resume_from_less_than_a_training(
    form: str, config: str, started: dict, evm_state: dict, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    more, message = UNFINISHED[form]
    torch.save(SOURCES[form](evm_state) | more, tmp_path / 'start.ckpt')
    assert train_tool.main([config, '--work-dir', str(tmp_path), '--resume', str(tmp_path / 'start.ckpt')]) == 2
    assert f'{tmp_path}/start.ckpt {message}' in capsys.readouterr().err and started == {}


def test_resume_without_a_checkpoint_yet_begins_as_the_config_says(
    config: str, train: Tool, started: dict, evm_state: dict
) -> None:
    torch.save(SOURCES['released'](evm_state), 'start.ckpt')
    assert train_tool.main([config, '--work-dir', 'work', '--resume', '--cfg-options', 'load_from=start.ckpt']) == 0
    assert differing(started, evm_state) == set()


ABSENT = ['model.backbone.init_cfg.type=Pretrained', 'model.backbone.init_cfg.checkpoint=nowhere.pth']


@pytest.mark.parametrize('form', SOURCES.keys())
def test_train_does_not_ask_for_pretrained_weights_that_load_from_overwrites(
    form: str, train: Tool, started: dict, evm_state: dict, capsys: pytest.CaptureFixture
) -> None:
    torch.save(SOURCES[form](evm_state), 'start.ckpt')
    assert train('load_from=start.ckpt', *ABSENT) == 0
    assert differing(started, evm_state) == ({'head.fc.weight', 'head.fc.bias'} if form == 'backbone' else set())
    assert 'backbone.init_cfg: nowhere.pth is left out, start.ckpt overwrites it' in capsys.readouterr().out


@pytest.mark.parametrize('flag', [['--resume'], ['--resume', 'work/epoch_1.pth']], ids=['auto', 'path'])
def test_resume_does_not_ask_for_pretrained_weights(
    flag: list[str], config: str, train: Tool, started: dict, evm_state: dict, tmp_path: Path
) -> None:
    (tmp_path / 'work').mkdir()
    (tmp_path / 'work/last_checkpoint').write_text('work/epoch_1.pth')
    more = {'meta': {'epoch': 1, 'iter': 3}, 'message_hub': MessageHub('any').state_dict()}
    torch.save({'state_dict': to_classifier(evm_state), **more}, 'work/epoch_1.pth')
    assert train_tool.main([config, '--work-dir', 'work', *flag, '--cfg-options', *ABSENT]) == 0
    assert differing(started, evm_state) == set()


def test_resume_without_a_checkpoint_yet_asks_for_pretrained_weights(
    config: str, train: Tool, started: dict, capsys: pytest.CaptureFixture
) -> None:
    assert train_tool.main([config, '--work-dir', 'work', '--resume', '--cfg-options', *ABSENT]) == 2
    assert 'nowhere.pth' in capsys.readouterr().err and started == {}


def test_resume_refuses_names_of_the_zoo(config: str, started: dict, capsys: pytest.CaptureFixture) -> None:
    assert train_tool.main([config, '--resume', NAME]) == 2
    assert 'the zoo has weights alone' in capsys.readouterr().err and started == {}


def test_the_tools_suggest_names(config: str, train: Tool, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    for run in (lambda name: train(f'load_from={name}'), lambda name: evaluate.main([config, name])):
        assert run('mmevm://efficientvmamba_tiny') == 2
        assert 'did you mean efficient_vmamba_tiny' in capsys.readouterr().err
    assert not (tmp_path / 'work').exists()


def test_test_evaluates_by_name(config: str, hub: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert evaluate.main([config, NAME, '--work-dir', str(tmp_path / 'work')]) == 0
    assert 'accuracy/top1' in capsys.readouterr().out


def test_test_evaluates_a_compiled_models_file(
    config: str, evm_state: dict, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    weights = to_classifier(evm_state)
    compiled = {name.replace('backbone.', 'backbone._orig_mod.'): value for name, value in weights.items()}
    torch.save({'state_dict': compiled | {'auxiliary_head.fc.weight': torch.ones(1)}}, tmp_path / 'epoch_1.pth')
    assert evaluate.main([config, str(tmp_path / 'epoch_1.pth'), '--work-dir', str(tmp_path / 'work')]) == 0
    shown = capsys.readouterr().out
    assert 'accuracy/top1' in shown and f'loaded {len(weights)} tensors' in shown
    assert 'dropped auxiliary_head.fc' in shown


def test_test_refuses_another_variant(
    config: str, evm_state: dict, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    torch.save(REFUSED['variant'][0](evm_state), tmp_path / 'other.ckpt')
    assert evaluate.main([config, str(tmp_path / 'other.ckpt'), '--work-dir', str(tmp_path / 'work')]) == 2
    assert "it is the variant 'small'" in capsys.readouterr().err
