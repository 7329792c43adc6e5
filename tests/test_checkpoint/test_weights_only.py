"""`mmevm.checkpoint.weights_only`: what it reads, what it refuses, and how it says so."""

import argparse
import os
import re
import sys
from collections import Counter, OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer

from mmevm.checkpoint.weights_only import CheckpointError, load_file, register_weights_only_loader

pytestmark = pytest.mark.openmmlab


class Reduced:
    """Pickles as a call of ``function`` with ``args``."""

    def __init__(self, function: Any, *args: Any) -> None:
        self.call = function, args

    def __reduce__(self) -> tuple:
        return self.call


class Stateful(Reduced):
    """Pickles as a call followed by a state for what it returned."""

    def __init__(self, function: Any, args: tuple, state: Any) -> None:
        self.call = function, args, state


@pytest.fixture(params=[True, False], ids=['zip', 'legacy'])
def save(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    def write(content: Any) -> str:
        path = tmp_path / 'checkpoint.pth'
        torch.save(content, path, _use_new_zipfile_serialization=request.param)
        return str(path)

    return write


@pytest.mark.parametrize('array', [
    np.arange(6.).reshape(2, 3), np.asfortranarray(np.arange(6).reshape(2, 3)), np.array(3.5, dtype='>f4'),
    np.array([True, False]), np.array(['ab', 'c']), np.zeros((0, 4)), np.array([1 + 2j])
], ids=['float', 'fortran', 'big-endian-scalar', 'bool', 'text', 'empty', 'complex'])
def test_load_file_returns_numpy_arrays_as_saved(save: Any, array: np.ndarray) -> None:
    loaded = load_file(save({'array': (array, [array])}))['array']
    for got in (loaded[0], loaded[1][0]):
        assert type(got) is np.ndarray and got.dtype == array.dtype and got.shape == array.shape
        np.testing.assert_array_equal(got, array)


def test_load_file_returns_counters_as_saved(save: Any) -> None:
    # MultiStepLR keeps its milestones in one; a count of two would decay the learning rate twice.
    loaded = load_file(save({'milestones': Counter([8, 11])}))['milestones']
    assert type(loaded) is Counter and loaded == {8: 1, 11: 1}


def test_load_file_returns_tensors_scalars_and_namespaces_as_saved(save: Any) -> None:
    content = {'model': OrderedDict(w=torch.arange(3.)), 'best': np.float32(0.25), 'args': argparse.Namespace(lr=1e-3)}
    loaded = load_file(save(content))
    assert torch.equal(loaded['model']['w'], content['model']['w'])
    assert type(loaded['best']) is np.float32 and loaded['best'] == content['best']
    assert loaded['args'] == content['args']


def test_load_file_returns_a_working_log_history(save: Any) -> None:
    history = HistoryBuffer([1., 5., 3.], [1, 1, 1])
    loaded = load_file(save({'message_hub': {'log_scalars': OrderedDict(loss=history, empty=HistoryBuffer())}}))
    got = loaded['message_hub']['log_scalars']['loss']
    assert type(got) is HistoryBuffer
    assert (got.min(), got.max(), got.current(), got.statistics('mean')) == (1., 5., 3., 3.)
    assert len(loaded['message_hub']['log_scalars']['empty'].data[0]) == 0


def test_load_file_reads_what_was_loaded_and_saved_again(save: Any) -> None:
    first = load_file(save({'history': HistoryBuffer([2.], [1]), 'array': np.ones(2)}))
    second = load_file(save(first))
    np.testing.assert_array_equal(second['history'].data[0], [2.])
    np.testing.assert_array_equal(second['array'], np.ones(2))


def test_load_file_refuses_a_pickle_that_runs_a_command_and_does_not_run_it(save: Any, tmp_path: Path) -> None:
    path = save({'state_dict': {}, 'x': Reduced(os.system, f'touch {tmp_path}/ran')})
    with pytest.raises(RuntimeError, match=rf'Refused to load {re.escape(path)}: it asks for `(posix|nt)\.system`'):
        load_file(path)
    assert not (tmp_path / 'ran').exists()


# `getattr` on anything but the four statistics would reach the whole interpreter; numpy's own unpickling of object,
# void or re-flagged types would take bytes from the file for pointers.
@pytest.mark.parametrize(('evil', 'name'), [
    (Reduced(eval, '1 + 1'), 'eval'),
    (Reduced(getattr, HistoryBuffer, '__init__'), r"getattr\(HistoryBuffer, '__init__'\)"),
    (Reduced(getattr, torch.Tensor, 'mean'), r"getattr\(Tensor, 'mean'\)"),
    (Reduced(__import__, 'os'), '__import__'),
    (np.array([None, {}], dtype=object), r"numpy\.dtype\('O8'\)"),
    (np.zeros(2, dtype=[('a', 'i4')]), r"numpy\.dtype\('V4'\)"),
    (Stateful(np.dtype, ('f8', False, True), (3, '<', None, ('a',), {'a': (1, 0)}, 8, 8, 63)), r'numpy\.dtype'),
    (Path('x'), r'pathlib'),
], ids=['eval', 'getattr-private', 'getattr-other', 'import', 'object-array', 'record-array', 'dtype-flags', 'path'])
def test_load_file_refuses_and_names_everything_else(save: Any, evil: Any, name: str) -> None:
    with pytest.raises(CheckpointError, match=rf'asks for `[^`]*{name}'):
        load_file(save({'x': evil}))


def test_load_file_leaves_registered_globals_alone_and_does_not_use_them(save: Any) -> None:
    class Mine:
        pass

    Mine.__qualname__ = 'Mine'
    sys.modules[__name__].Mine = Mine
    torch.serialization.add_safe_globals([Mine])
    before = set(torch.serialization.get_safe_globals())
    with pytest.raises(CheckpointError, match='Mine'):
        load_file(save({'x': Mine()}))
    assert set(torch.serialization.get_safe_globals()) == before


def test_load_file_does_not_change_the_statistics_of_mmengine(save: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    before = dict(HistoryBuffer._statistics_methods)
    monkeypatch.setattr(HistoryBuffer, '__getstate__',
                        lambda self: {**vars(self), 'statistics_methods': {'mean': OrderedDict}})
    loaded = load_file(save({'history': HistoryBuffer([1., 2.], [1, 1])}))['history']
    assert loaded.statistics('mean') == 1.5
    assert before == HistoryBuffer._statistics_methods


@pytest.mark.parametrize(('content', 'cause'), [
    (b'', 'the file is empty'),
    (b'<!DOCTYPE html><html></html>', 'it is a web page'),
    (b'version https://git-lfs.github.com/spec/v1\n', 'it is a Git LFS pointer'),
    (b'hello world', 'it is no file that torch.save wrote'),
], ids=['empty', 'html', 'lfs', 'text'])
def test_load_file_says_what_an_unreadable_file_is(tmp_path: Path, content: bytes, cause: str) -> None:
    path = tmp_path / 'x.pth'
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=rf'Cannot read {re.escape(str(path))} .*{cause}'):
        load_file(path)


@pytest.mark.parametrize('keep', [0.1, 0.5, 0.99])
def test_load_file_says_that_a_file_is_cut_off(save: Any, tmp_path: Path, keep: float) -> None:
    whole = Path(save({'w': torch.rand(2000)})).read_bytes()
    path = tmp_path / 'part.pth'
    path.write_bytes(whole[:int(len(whole) * keep)])
    with pytest.raises(CheckpointError, match='Cannot read .*cut off'):
        load_file(path)


def test_load_file_names_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=f'Checkpoint not found: {tmp_path}/x.pth'):
        load_file(tmp_path / 'x.pth')


def test_load_file_refuses_what_is_no_mapping(save: Any) -> None:
    with pytest.raises(CheckpointError, match='must hold a mapping, .*, got Tensor'):
        load_file(save(torch.ones(2)))


def test_load_file_reads_safetensors(tmp_path: Path) -> None:
    safetensors = pytest.importorskip('safetensors.torch')
    safetensors.save_file({'w': torch.arange(4.)}, tmp_path / 'x.safetensors')
    assert torch.equal(load_file(tmp_path / 'x.safetensors')['w'], torch.arange(4.))


@pytest.fixture
def mmengine_loader() -> Any:
    """MMEngine's checkpoint loader with ours registered, put back afterwards."""
    from mmengine.runner import checkpoint
    schemes, http = checkpoint.CheckpointLoader._schemes.copy(), checkpoint.load_from_http
    register_weights_only_loader()
    yield checkpoint.CheckpointLoader
    checkpoint.CheckpointLoader._schemes, checkpoint.load_from_http = schemes, http


def test_registered_loader_refuses_code_in_mmengines_own_loading(save: Any, tmp_path: Path,
                                                                 mmengine_loader: Any) -> None:
    path = save({'state_dict': {}, 'x': Reduced(os.system, f'touch {tmp_path}/ran')})
    with pytest.raises(CheckpointError, match='system'):
        mmengine_loader.load_checkpoint(path)
    assert not (tmp_path / 'ran').exists()


def test_registered_loader_drops_the_config_text_that_resume_would_execute(save: Any, mmengine_loader: Any) -> None:
    path = save({'state_dict': {}, 'meta': {'config': 'import os', 'cfg': 'a = 1', 'epoch': 3}})
    assert mmengine_loader.load_checkpoint(path)['meta'] == {'cfg': 'a = 1', 'epoch': 3}


def test_registered_loader_downloads_once_and_opens_weights_only(save: Any, tmp_path: Path, mmengine_loader: Any,
                                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    source, calls = save({'state_dict': {'w': torch.ones(1)}, 'x': Reduced(os.getcwd)}), []

    def download(url: str, target: str, *_: Any, **__: Any) -> None:
        calls.append(url)
        Path(target).write_bytes(Path(source).read_bytes())

    monkeypatch.setattr(torch.hub, 'download_url_to_file', download)
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path / 'hub'))
    for _ in range(2):
        with pytest.raises(CheckpointError, match='getcwd'):
            mmengine_loader.load_checkpoint('https://example.org/weights.pth')
    assert calls == ['https://example.org/weights.pth']
