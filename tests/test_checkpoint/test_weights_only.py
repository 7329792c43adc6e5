"""`mmevm.checkpoint.weights_only`: what it reads, what it refuses, and how it says so."""

import argparse
import os
import re
import shlex
import sys
import tarfile
import threading
import time
from collections import Counter, OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer

from mmevm.checkpoint.weights_only import CheckpointError, load_file

from .conftest import Reduced

pytestmark = pytest.mark.openmmlab


class Stateful(Reduced):
    """Pickles as a call followed by a state for what it returned."""

    def __init__(self, function: Any, args: tuple, state: Any) -> None:
        self.call = function, args, state


@pytest.mark.parametrize(
    'array',
    [
        np.arange(6.0).reshape(2, 3),
        np.asfortranarray(np.arange(6).reshape(2, 3)),
        np.array(3.5, dtype='>f4'),
        np.array([True, False]),
        np.array(['ab', 'c']),
        np.zeros((0, 4)),
        np.array([1 + 2j]),
    ],
    ids=['float', 'fortran', 'big-endian-scalar', 'bool', 'text', 'empty', 'complex'],
)
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
    content = {'model': OrderedDict(w=torch.arange(3.0)), 'best': np.float32(0.25), 'args': argparse.Namespace(lr=1e-3)}
    loaded = load_file(save(content))
    assert torch.equal(loaded['model']['w'], content['model']['w'])
    assert type(loaded['best']) is np.float32 and loaded['best'] == content['best']
    assert loaded['args'] == content['args']


def test_load_file_returns_a_working_log_history(save: Any) -> None:
    history = HistoryBuffer([1.0, 5.0, 3.0], [1, 1, 1])
    loaded = load_file(save({'message_hub': {'log_scalars': OrderedDict(loss=history, empty=HistoryBuffer())}}))
    got = loaded['message_hub']['log_scalars']['loss']
    assert type(got) is HistoryBuffer
    assert (got.min(), got.max(), got.current(), got.statistics('mean')) == (1.0, 5.0, 3.0, 3.0)
    assert len(loaded['message_hub']['log_scalars']['empty'].data[0]) == 0


def test_load_file_reads_what_was_loaded_and_saved_again(save: Any) -> None:
    first = load_file(save({'history': HistoryBuffer([2.0], [1]), 'array': np.ones(2)}))
    second = load_file(save(first))
    np.testing.assert_array_equal(second['history'].data[0], [2.0])
    np.testing.assert_array_equal(second['array'], np.ones(2))


def test_load_file_refuses_a_pickle_that_runs_a_command_and_does_not_run_it(save: Any, tmp_path: Path) -> None:
    path = save({'state_dict': {}, 'x': Reduced(os.system, f'touch {tmp_path}/ran')})
    with pytest.raises(RuntimeError, match=rf'Refused to load {re.escape(path)}: it asks for `(posix|nt)\.system`'):
        load_file(path)
    assert not (tmp_path / 'ran').exists()


# `getattr` on anything but the four statistics would reach the whole interpreter; numpy's own unpickling of object,
# void or re-flagged types would take bytes from the file for pointers.
@pytest.mark.parametrize(
    ('evil', 'name'),
    [
        (Reduced(eval, '1 + 1'), 'eval'),
        (Reduced(getattr, HistoryBuffer, '__init__'), r"getattr\(HistoryBuffer, '__init__'\)"),
        (Reduced(getattr, torch.Tensor, 'mean'), r"getattr\(Tensor, 'mean'\)"),
        (Reduced(__import__, 'os'), '__import__'),
        (np.array([None, {}], dtype=object), r"numpy\.dtype\('O8'\)"),
        (np.zeros(2, dtype=[('a', 'i4')]), r"numpy\.dtype\('V4'\)"),
        (Stateful(np.dtype, ('f8', False, True), (3, '<', None, ('a',), {'a': (1, 0)}, 8, 8, 63)), r'numpy\.dtype'),
        (Path('x'), r'pathlib'),
    ],
    ids=['eval', 'getattr-private', 'getattr-other', 'import', 'object-array', 'record-array', 'dtype-flags', 'path'],
)
def test_load_file_refuses_and_names_everything_else(save: Any, evil: Any, name: str) -> None:
    with pytest.raises(CheckpointError, match=rf'asks for `[^`]*{name}'):
        load_file(save({'x': evil}))


def test_load_file_refuses_torchscript_and_the_first_tar_format(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script, tar = tmp_path / 'script.pth', tmp_path / 'tar.pth'
    torch.jit.save(torch.jit.script(torch.nn.Linear(1, 1)), script)
    with tarfile.open(tar, 'w') as archive:
        archive.addfile(tarfile.TarInfo('storages'))
    # torch < 2.6 ran code from both in spite of `weights_only`.
    monkeypatch.setattr(torch, 'load', lambda *_, **__: pytest.fail('opened by torch.load'))
    with pytest.raises(CheckpointError, match=r'script\.pth: it is a TorchScript program, which is code'):
        load_file(script)
    with pytest.raises(CheckpointError, match=r'tar\.pth: it is a tar archive'):
        load_file(tar)


def test_load_file_refuses_whatever_torchs_environment_variable_says(
    save: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv('TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD', '1')
    with pytest.raises(CheckpointError, match='system'):
        load_file(save({'x': Reduced(os.system, f'touch {tmp_path}/ran')}))
    assert not (tmp_path / 'ran').exists()


def test_load_file_comes_to_an_end_with_shared_cyclic_and_deep_containers(save: Any) -> None:
    shared: Any = (np.ones(1),)
    for _ in range(60):
        shared = (shared, shared)  # 2**60 ways to the array
    cyclic: list = [np.ones(1)]
    cyclic.append(cyclic)
    loaded = load_file(save({'shared': shared, 'cyclic': cyclic}))
    assert loaded['cyclic'][1] is loaded['cyclic'] and type(loaded['cyclic'][0]) is np.ndarray
    deep: list = []
    for _ in range(200):
        deep = [deep]
    with pytest.raises(CheckpointError, match='nested more than 100 deep'):
        load_file(save({'deep': deep}))


def test_refusal_quotes_the_files_name_for_the_shell(tmp_path: Path) -> None:
    path = tmp_path / 'x";touch ran;echo "$(touch ran)\'`touch ran`.pth'
    torch.save({'x': Reduced(os.getcwd)}, path)
    with pytest.raises(CheckpointError) as refused:
        load_file(path)
    command, flag, code = shlex.split(str(refused.value).partition('load that file instead: ')[2])
    assert (command, flag) == ('python', '-c') and compile(code, 'code', 'exec')
    assert repr(str(path))[1:-1].replace("\\'", "'") in code.replace('\\"', '"')


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


def test_load_file_keeps_threads_from_each_others_globals(save: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    path, seen = save({'w': torch.ones(1)}), []

    def load(*_: Any, **__: Any) -> dict[str, Any]:
        time.sleep(0.05)
        seen.append(Reduced in torch.serialization.get_safe_globals())
        return {}

    monkeypatch.setattr(torch, 'load', load)
    with torch.serialization.safe_globals([Reduced]):
        threads = [threading.Thread(target=load_file, args=(path,)) for _ in range(2)]
        for thread in threads:
            thread.start()
            time.sleep(0.02)
        for thread in threads:
            thread.join()
    assert seen == [False, False]


def test_load_file_does_not_change_the_statistics_of_mmengine(save: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    before = dict(HistoryBuffer._statistics_methods)
    monkeypatch.setattr(
        HistoryBuffer, '__getstate__', lambda self: {**vars(self), 'statistics_methods': {'mean': OrderedDict}}
    )
    loaded = load_file(save({'history': HistoryBuffer([1.0, 2.0], [1, 1])}))['history']
    assert loaded.statistics('mean') == 1.5
    assert before == HistoryBuffer._statistics_methods


@pytest.mark.parametrize(
    ('content', 'cause'),
    [
        (b'', 'the file is empty'),
        (b'<!DOCTYPE html><html></html>', 'it is a web page'),
        (b'version https://git-lfs.github.com/spec/v1\n', 'it is a Git LFS pointer'),
        (b'hello world', 'it is not a torch.save file'),
    ],
    ids=['empty', 'html', 'lfs', 'text'],
)
def test_load_file_says_what_an_unreadable_file_is(tmp_path: Path, content: bytes, cause: str) -> None:
    path = tmp_path / 'x.pth'
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=rf'Cannot read {re.escape(str(path))} .*{cause}'):
        load_file(path)


@pytest.mark.parametrize('keep', [0.1, 0.5, 0.99])
def test_load_file_says_that_a_file_is_cut_off(save: Any, tmp_path: Path, keep: float) -> None:
    whole = Path(save({'w': torch.rand(2000)})).read_bytes()
    path = tmp_path / 'part.pth'
    path.write_bytes(whole[: int(len(whole) * keep)])
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
    safetensors.save_file({'w': torch.arange(4.0)}, tmp_path / 'x.safetensors')
    assert torch.equal(load_file(tmp_path / 'x.safetensors')['w'], torch.arange(4.0))
