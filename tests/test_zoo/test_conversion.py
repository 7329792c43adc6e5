import argparse
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mmevm.backbones import EfficientVMamba
from mmevm.checkpoint import CheckpointError, formats, load_checkpoint, load_file
from mmevm.files import file_hash
from mmevm.zoo import convert

from ..parity import Fixture, names

State = dict[str, Tensor]


def assert_equal(left: State, right: State) -> None:
    """The same names, dtypes and bits."""
    assert left.keys() == right.keys()
    for name, value in left.items():
        assert value.dtype == right[name].dtype and torch.equal(value, right[name]), name


def weights_of(path: Path) -> State:
    content = load_file(path)
    return content if path.suffix == '.safetensors' else content['state_dict']


@pytest.mark.parametrize('name', [name for model in ('evm', 'vmamba', 'vim') for name in names(model)])
def test_to_upstream_gives_upstreams_names_again(name: str) -> None:
    upstream = Fixture(name).meta['manifest'] | Fixture(name).meta.get('outnorm', {})
    converted = formats.convert(upstream)
    assert len(converted) == len(upstream)
    assert formats.to_upstream(converted) == upstream
    assert formats.to_upstream(upstream) == upstream


@pytest.mark.parametrize('suffix', ['.pth', '.safetensors'])
def test_convert_and_back_is_lossless(suffix: str, evm_state: State, evm_file: bytes, tmp_path: Path) -> None:
    (tmp_path / 'upstream.ckpt').write_bytes(evm_file)
    ours, back = tmp_path / f'ours{suffix}', tmp_path / 'back.ckpt'
    report = convert(tmp_path / 'upstream.ckpt', ours)
    assert_equal(weights_of(ours), formats.convert(evm_state))
    assert report.tensors == len(evm_state) and report.dropped == []
    assert report.renamed == sum(formats.rename(name) != name for name in evm_state) > 0
    convert(ours, back, layout='upstream')
    assert_equal(weights_of(back), evm_state)


@pytest.mark.parametrize('suffix', ['.pth', '.safetensors'])
@pytest.mark.parametrize('layout', ['mmevm', 'upstream'])
def test_convert_is_idempotent(suffix: str, layout: str, evm_file: bytes, tmp_path: Path) -> None:
    (tmp_path / 'upstream.ckpt').write_bytes(evm_file)
    first = convert(tmp_path / 'upstream.ckpt', tmp_path / f'first{suffix}', layout)
    second = convert(tmp_path / f'first{suffix}', tmp_path / f'second{suffix}', layout)
    assert second.metadata == first.metadata and second.renamed == 0 and second.dropped == []
    assert_equal(weights_of(tmp_path / f'first{suffix}'), weights_of(tmp_path / f'second{suffix}'))


def test_convert_writes_where_the_weights_come_from(evm_file: bytes, tmp_path: Path) -> None:
    (tmp_path / 'upstream.ckpt').write_bytes(evm_file)
    metadata = convert(tmp_path / 'upstream.ckpt', tmp_path / 'ours.safetensors').metadata
    assert metadata['architecture'] == 'EfficientVMamba tiny' and metadata['source'] == 'upstream.ckpt'
    assert metadata['source_sha256'] == file_hash(tmp_path / 'upstream.ckpt')
    from safetensors import safe_open

    with safe_open(tmp_path / 'ours.safetensors', 'pt') as file:
        assert file.metadata() == metadata
    convert(tmp_path / 'upstream.ckpt', tmp_path / 'ours.pth')
    assert load_file(tmp_path / 'ours.pth')['meta'] == metadata


@pytest.mark.parametrize('suffix', ['.pth', '.safetensors'])
def test_converted_files_load_strictly(suffix: str, evm_state: State, evm_file: bytes, tmp_path: Path) -> None:
    (tmp_path / 'upstream.ckpt').write_bytes(evm_file)
    convert(tmp_path / 'upstream.ckpt', tmp_path / f'ours{suffix}')
    first, second = EfficientVMamba('tiny'), EfficientVMamba('tiny')
    load_checkpoint(first, evm_state)
    load_checkpoint(second, tmp_path / f'ours{suffix}')
    assert_equal(first.state_dict(), second.state_dict())


def test_convert_says_what_it_leaves_out_and_takes_another_key(evm_state: State, tmp_path: Path) -> None:
    average = {name: value + 1 for name, value in evm_state.items()}
    content: dict[str, Any] = {'model': evm_state, 'model_ema': average, 'epoch': 3, 'args': argparse.Namespace(lr=1)}
    torch.save(content, tmp_path / 'run.pth')
    assert convert(tmp_path / 'run.pth', tmp_path / 'a.pth').dropped == ['model_ema', 'epoch', 'args']
    assert_equal(weights_of(tmp_path / 'a.pth'), formats.convert(evm_state))
    assert convert(tmp_path / 'run.pth', tmp_path / 'b.pth', key='model_ema').dropped == ['model', 'epoch', 'args']
    assert_equal(weights_of(tmp_path / 'b.pth'), formats.convert(average))
    with pytest.raises(CheckpointError, match="no mapping under 'ema'; it has model, model_ema"):
        convert(tmp_path / 'run.pth', tmp_path / 'c.pth', key='ema')


def test_convert_renames_the_backbone_of_a_whole_model(evm_state: State, tmp_path: Path) -> None:
    backbone = {f'backbone.{name}': value for name, value in evm_state.items()}
    torch.save({'state_dict': OrderedDict(backbone, head=torch.ones(2)), 'meta': {}}, tmp_path / 'detector.pth')
    report = convert(tmp_path / 'detector.pth', tmp_path / 'out.pth')
    expected = {f'backbone.{name}': value for name, value in formats.convert(evm_state).items()}
    assert_equal(weights_of(tmp_path / 'out.pth'), expected | {'head': torch.ones(2)})
    assert report.dropped == ['meta'] and report.metadata['architecture'] == 'EfficientVMamba tiny'


@pytest.mark.parametrize('prefix', ['_orig_mod.', 'module._orig_mod.', 'model.', 'net.module.', '_orig_mod.encoder.'])
@pytest.mark.parametrize('whole', [True, False], ids=['model', 'backbone'])
def test_convert_removes_what_compilers_and_frameworks_put_before_names(
    prefix: str, whole: bool, evm_state: State, tmp_path: Path
) -> None:
    state, expected = evm_state, formats.convert(evm_state)
    if whole:
        head = {'neck.conv.weight': torch.ones(2)}
        state, expected = ({f'backbone.{name}': value for name, value in s.items()} | head for s in (state, expected))
    torch.save({'state_dict': {prefix + name: value for name, value in state.items()}}, tmp_path / 'run.pth')
    report = convert(tmp_path / 'run.pth', tmp_path / 'out.pth')
    assert_equal(weights_of(tmp_path / 'out.pth'), expected)
    assert report.dropped == [] and report.metadata['architecture'] == 'EfficientVMamba tiny'
    torch.save({'state_dict': {prefix + name: value for name, value in expected.items()}}, tmp_path / 'ours.pth')
    convert(tmp_path / 'ours.pth', tmp_path / 'back.pth', layout='upstream')
    assert_equal(weights_of(tmp_path / 'back.pth'), state)


def test_convert_reads_compiled_parts_and_leaves_out_what_is_beside_a_model(evm_state: State, tmp_path: Path) -> None:
    expected = formats.convert(evm_state)
    compiled = {f'backbone._orig_mod.{name}': value for name, value in expected.items()}
    torch.save(
        {f'module.{name}': value for name, value in compiled.items()} | {'n_averaged': torch.ones(())},
        tmp_path / 'average.pth',
    )
    report = convert(tmp_path / 'average.pth', tmp_path / 'out.pth')
    assert_equal(weights_of(tmp_path / 'out.pth'), {f'backbone.{name}': value for name, value in expected.items()})
    assert report.dropped == ['n_averaged']


@pytest.mark.parametrize('suffix', ['.pth', '.safetensors'])
def test_convert_keeps_the_names_of_other_architectures(suffix: str, other_file: bytes, tmp_path: Path) -> None:
    (tmp_path / 'other.pth').write_bytes(other_file)
    report = convert(tmp_path / 'other.pth', tmp_path / f'out{suffix}', layout='upstream')
    assert_equal(weights_of(tmp_path / f'out{suffix}'), load_file(tmp_path / 'other.pth')['model'])
    assert report.renamed == 0 and report.metadata['architecture'] == 'unknown' and report.dropped == ['epoch', 'args']


def test_convert_takes_shared_strided_and_integer_tensors(tmp_path: Path) -> None:
    base = torch.arange(12.0).reshape(3, 4)
    state = {'a': base, 'b': base, 't': base.t(), 'n': torch.tensor(7), 'h': torch.ones(2, dtype=torch.bfloat16)}
    torch.save(state, tmp_path / 'state.pth')
    convert(tmp_path / 'state.pth', tmp_path / 'state.safetensors')
    assert_equal(weights_of(tmp_path / 'state.safetensors'), state)


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        ({'state_dict': {'a': 'x'}}, 'what is no tensor: a'),
        ({'state_dict': {}}, 'has nothing where'),
        ({'epoch': 3}, 'what is no tensor: epoch'),
    ],
)
def test_convert_refuses_files_without_weights(content: dict, message: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / 'in.pth')
    with pytest.raises(CheckpointError, match=message):
        convert(tmp_path / 'in.pth', tmp_path / 'out.pth')
    assert not (tmp_path / 'out.pth').exists()


def test_convert_leaves_the_target_alone_when_writing_fails(
    other_file: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / 'other.pth').write_bytes(other_file)
    (tmp_path / 'out.pth').write_bytes(b'before')

    def half(content: Any, path: Path) -> None:
        path.write_bytes(b'half')
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(torch, 'save', half)
    with pytest.raises(OSError, match='No space'):
        convert(tmp_path / 'other.pth', tmp_path / 'out.pth')
    assert (tmp_path / 'out.pth').read_bytes() == b'before'
    assert sorted(p.name for p in tmp_path.iterdir()) == ['other.pth', 'out.pth']


def test_convert_names_a_damaged_safetensors_file(tmp_path: Path) -> None:
    (tmp_path / 'x.safetensors').write_bytes(b'no header')
    with pytest.raises(CheckpointError, match='not a safetensors file'):
        convert(tmp_path / 'x.safetensors', tmp_path / 'out.pth')
