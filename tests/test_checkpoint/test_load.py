import re
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import torch
from mmengine.model import PretrainedInit
from mmengine.runner import load_checkpoint as mmengine_load
from torch import nn

from mmevm.backbones import EfficientVMamba
from mmevm.checkpoint import CheckpointError, formats, load_checkpoint, report

from ..parity import Fixture
from .conftest import State, assert_loaded


def _older(state: State) -> State:
    spellings = [
        (r'^patch_embed\.0\.', 'patch_embed.proj.'),
        (r'^patch_embed\.2\.', 'patch_embed.norm.'),
        (r'(blocks\.\d+)\.norm\.', r'\1.ln_1.'),
        (r'(blocks\.\d+)\.op\.', r'\1.self_attention.'),
        (r'^classifier\.', ''),
    ]
    out = {}
    for name, value in state.items():
        for pattern, replacement in spellings:
            name = re.sub(pattern, replacement, name)
        out[name] = value
    return out


def _prefixed(prefix: str) -> Callable[[State], State]:
    return lambda state: {prefix + name: value for name, value in state.items()}


FORMATS: dict[str, Callable[[State], dict[str, Any]]] = {
    'bare': dict,
    'released': lambda s: {'state_dict': OrderedDict(_prefixed('module.module.')(s))},
    'one module': lambda s: {'state_dict': _prefixed('module.')(s)},
    'model': lambda s: {'model': s, 'epoch': 291, 'optimizer': {'lr': 1}},
    'state_dict_ema': lambda s: {'state_dict_ema': _prefixed('module.')(s)},
    'model_ema': lambda s: {'model_ema': s, 'model': None},
    'mmengine': lambda s: {'state_dict': _prefixed('backbone.')(s) | {'bbox_head.x': torch.zeros(1)}, 'meta': {}},
    'old spelling': lambda s: {'model': _older(s)},
    'mmevm': lambda s: {'state_dict': formats.convert(s)},
}


@pytest.mark.parametrize('wrap', FORMATS.values(), ids=FORMATS.keys())
@pytest.mark.parametrize('as_file', [True, False], ids=['file', 'mapping'])
def test_load_checkpoint_reads(wrap: Callable, as_file: bool, state: State, tmp_path: Path) -> None:
    source: Any = wrap(state)
    if as_file:
        torch.save(source, tmp_path / 'upstream.ckpt')
        source = tmp_path / 'upstream.ckpt'
    model = EfficientVMamba('tiny')
    report = load_checkpoint(model, source)
    assert_loaded(model, state)
    assert report.problems == [] and report.fresh == [f'outnorm{i}.{x}' for i in range(3) for x in ('weight', 'bias')]


@pytest.mark.parametrize('wrap', FORMATS.values(), ids=FORMATS.keys())
def test_init_cfg_loads(wrap: Callable, state: State, tmp_path: Path) -> None:
    torch.save(wrap(state), tmp_path / 'upstream.ckpt')
    init_cfg = {'type': 'Pretrained', 'checkpoint': str(tmp_path / 'upstream.ckpt')}
    model = EfficientVMamba('tiny', init_cfg=init_cfg)
    model.init_weights()
    assert_loaded(model, state)


@pytest.mark.parametrize('name', ['bare', 'one module', 'released', 'model', 'old spelling', 'mmevm'])
def test_mmengines_loader_reads(name: str, state: State, tmp_path: Path) -> None:
    torch.save(FORMATS[name](state), tmp_path / 'upstream.ckpt')
    model = EfficientVMamba('tiny')
    mmengine_load(model, str(tmp_path / 'upstream.ckpt'))
    assert_loaded(model, state)


def test_load_state_dict_reads_upstreams_names(state: State) -> None:
    model = EfficientVMamba('tiny', out_indices=(3,))
    model.load_state_dict(state)
    assert_loaded(model, state)


def test_load_checkpoint_keeps_output_norms_of_dense_checkpoints() -> None:
    dense, model = Fixture('evm_tiny_64x64').state(), EfficientVMamba('tiny')
    report = load_checkpoint(model, {'state_dict': _prefixed('backbone.')(dense)})
    assert report.fresh == []
    for i in range(4):
        assert torch.equal(getattr(model, f'outnorm{i}').weight, dense[f'outnorm{i}.weight'])


def test_load_checkpoint_drops_the_norms_of_maps_that_the_model_does_not_return() -> None:
    dense, model = Fixture('evm_tiny_64x64').state(), EfficientVMamba('tiny', out_indices=(3,))
    report = load_checkpoint(model, {'state_dict': _prefixed('backbone.')(dense)})
    norms = {f'outnorm{i}.{leaf}' for i in range(3) for leaf in ('weight', 'bias')}
    assert {name for name in report.dropped if not name.startswith('classifier.')} == norms
    assert torch.equal(model.outnorm3.weight, dense['outnorm3.weight'])


FOUR_STAGES = {'dims': [8, 16, 32, 64], 'depths': [1, 1, 1, 1]}


@pytest.mark.parametrize('prefix', ['', 'backbone.'])
@pytest.mark.parametrize('saved', [(1, 2, 3), (2, 3), (3,), (0, 1, 2, 3)], ids=str)
@pytest.mark.parametrize('wanted', [(0, 1, 2, 3), (0, 3), (3,)], ids=str)
def test_load_checkpoint_leaves_norms_fresh_that_the_file_was_made_without(
    saved: tuple[int, ...], wanted: tuple[int, ...], prefix: str
) -> None:
    source = EfficientVMamba(FOUR_STAGES, out_indices=saved)
    model = EfficientVMamba(FOUR_STAGES, out_indices=wanted)
    for i in saved:
        torch.nn.init.normal_(getattr(source, f'outnorm{i}').weight)
    report = load_checkpoint(model, _prefixed(prefix)(source.state_dict()))
    assert report.fresh == [f'outnorm{i}.{x}' for i in wanted if i not in saved for x in ('weight', 'bias')]
    assert report.dropped == [f'outnorm{i}.{x}' for i in saved if i not in wanted for x in ('weight', 'bias')]
    for i in wanted:
        weight = getattr(model, f'outnorm{i}').weight
        assert torch.equal(weight, getattr(source, f'outnorm{i}').weight) if i in saved else weight.eq(1).all()
    if report.fresh:
        with pytest.raises(CheckpointError, match='tensors of outnorm0.*, which would stay random'):
            report.require_whole('x')


@pytest.mark.parametrize('lost', ['outnorm1.weight', 'outnorm1.bias', 'outnorm3.bias'])
@pytest.mark.parametrize('wanted', [(0, 1, 2, 3), (0, 1, 3), (0, 3), (3,)], ids=str)
def test_load_checkpoint_refuses_half_of_a_norm(lost: str, wanted: tuple[int, ...]) -> None:
    state = _without(lost)(EfficientVMamba(FOUR_STAGES).state_dict())
    norm, _, leaf = lost.partition('.')
    other = f'{norm}.{"bias" if leaf == "weight" else "weight"}'
    message = f'1 missing: {lost}' if int(norm[-1]) in wanted else f'1 unexpected: {other}'
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(EfficientVMamba(FOUR_STAGES, out_indices=wanted), state)


def test_load_checkpoint_is_idempotent(state: State) -> None:
    first, second = EfficientVMamba('tiny'), EfficientVMamba('tiny')
    load_checkpoint(first, state)
    report = load_checkpoint(second, first.state_dict())
    assert report.fresh == report.dropped == []
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def _without(name: str) -> Callable[[State], State]:
    return lambda s: {k: v for k, v in s.items() if k != name}


def _other_variant(state: State) -> State:
    return EfficientVMamba('small').state_dict()


FAILURES = {
    'missing': (_without('patch_embed.0.bias'), r'1 missing: patch_embed\.proj\.bias'),
    'unexpected': (lambda s: s | {'extra.weight': torch.zeros(1)}, r'1 unexpected: extra\.weight'),
    'shape': (
        lambda s: s | {'patch_embed.0.bias': torch.zeros(50)},
        r'1 of another shape: patch_embed\.proj\.bias \(expected \[48\], got \[50\]\)',
    ),
    'no tensor': (lambda s: s | {'patch_embed.0.bias': 'x'}, r'expected a tensor, got str'),
    'variant': (_other_variant, r"it is the variant 'small' .*the model has dims \[48, 96, 192, 384\]"),
    'other model': (lambda s: {'conv1.weight': torch.zeros(3)}, 'no EfficientVMamba backbone'),
    'half of a norm': (lambda s: s | {'outnorm1.weight': torch.ones(96)}, r'1 missing: outnorm1\.bias'),
    'tiny with depth 9': (lambda s: s | {'layers.2.9.conv_pw.0.weight': torch.zeros(1)}, r'depths \[2, 2, 5, 2\]'),
}


@pytest.mark.parametrize('change, message', FAILURES.values(), ids=FAILURES.keys())
def test_load_checkpoint_refuses_and_leaves_the_model_unchanged(change: Callable, message: str, state: State) -> None:
    model = EfficientVMamba('tiny')
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(model, change(state))
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_load_checkpoint_names_the_first_of_many_differences() -> None:
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(EfficientVMamba('tiny'), {f'extra{i:02d}': torch.zeros(1) for i in range(20)})
    assert '20 unexpected: extra00, extra01, ' in str(caught.value) and 'extra07 and 12 more' in str(caught.value)


@pytest.mark.parametrize('kind', ['Pretrained', 'mmengine.Pretrained', PretrainedInit], ids=str)
def test_init_cfg_refuses_another_variant(kind: object, tmp_path: Path) -> None:
    torch.save(EfficientVMamba('small').state_dict(), tmp_path / 'small.pth')
    model = EfficientVMamba('tiny', init_cfg={'type': kind, 'checkpoint': str(tmp_path / 'small.pth')})
    with pytest.raises(CheckpointError, match=r"small\.pth .*the variant 'small'"):
        model.init_weights()


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The lines that loading logs."""
    lines: list[str] = []
    monkeypatch.setattr(report, 'print_log', lambda line, **_: lines.append(line))
    return lines


def test_load_checkpoint_without_strict_loads_what_fits(state: State, log: list[str]) -> None:
    model = EfficientVMamba('tiny')
    report = load_checkpoint(model, _without('patch_embed.0.bias')(state), strict=False)
    assert report.missing == ['patch_embed.proj.bias']
    assert torch.equal(model.patch_embed.proj.weight, state['patch_embed.0.weight'])
    assert '1 missing: patch_embed.proj.bias' in log[-1]


def test_load_checkpoint_says_in_one_line_what_it_dropped_and_left(state: State, log: list[str]) -> None:
    load_checkpoint(EfficientVMamba('tiny'), state)
    assert len(log) == 1
    assert 'dropped classifier.head' in log[0] and 'left fresh outnorm0, outnorm1, outnorm2' in log[0]


def test_load_checkpoint_needs_a_backbone_of_mmevm() -> None:
    with pytest.raises(TypeError, match='expected a backbone of mmevm .* got Linear'):
        load_checkpoint(nn.Linear(1, 1), {})


def test_load_checkpoint_names_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises((CheckpointError, FileNotFoundError), match='nowhere.ckpt'):
        load_checkpoint(EfficientVMamba('tiny'), tmp_path / 'nowhere.ckpt')


def test_load_checkpoint_downloads_addresses(state: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / 'served').mkdir()
    torch.save({'state_dict': state}, tmp_path / 'served' / 'upstream.ckpt')
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path / 'served'))
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'hub'))
    model = EfficientVMamba('tiny')
    with ThreadingHTTPServer(('127.0.0.1', 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        load_checkpoint(model, f'http://127.0.0.1:{server.server_port}/upstream.ckpt')
        server.shutdown()
    assert_loaded(model, state)
