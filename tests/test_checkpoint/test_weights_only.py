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
from collections.abc import Callable
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
        (b'hello world', 'it is no file that torch.save wrote'),
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


@pytest.fixture
def mmengine_loader() -> Any:
    """MMEngine's checkpoint loader with ours registered, put back afterwards."""
    from mmengine.runner import CheckpointLoader

    schemes = CheckpointLoader._schemes.copy()
    register_weights_only_loader()
    yield CheckpointLoader
    CheckpointLoader._schemes = schemes


def test_registered_loader_refuses_code_in_mmengines_own_loading(
    save: Any, tmp_path: Path, mmengine_loader: Any
) -> None:
    path = save({'state_dict': {}, 'x': Reduced(os.system, f'touch {tmp_path}/ran')})
    with pytest.raises(CheckpointError, match='system'):
        mmengine_loader.load_checkpoint(path)
    assert not (tmp_path / 'ran').exists()


def poison(tmp_path: Path) -> str:
    """Python text that leaves a file behind when it is run."""
    return f"open({str(tmp_path / 'ran')!r}, 'w')"


TEXTS: dict[str, Callable[[str], dict[str, Any]]] = {
    'message hub': lambda text: {'message_hub': {'runtime_info': {'cfg': text}}},
    'meta': lambda text: {'meta': {'cfg': text, 'config': text}},
    'other spellings': lambda text: {'CFG': text, 'meta': {'Config': text, 'model_cfg': text, b'config_text': text}},
    'numpy text': lambda text: {'meta': {np.array(['cfg'])[0]: np.array([text])[0]}},
    'no plain text': lambda text: {'meta': {'cfg': text.encode(), 'config': [text]}},
    'deep': lambda text: {'meta': {'runs': [({'config': {'text': text}},)]}},
    'ordered': lambda text: {'message_hub': OrderedDict(runtime_info=OrderedDict(cfg=text))},
    'counter': lambda text: {'message_hub': Counter({'cfg': text})},
    'namespace': lambda text: {'args': argparse.Namespace(cfg=text, more={'config': text})},
}


@pytest.mark.parametrize('place', TEXTS.values(), ids=TEXTS.keys())
def test_registered_loader_leaves_no_config_text_for_mmengine(
    place: Any, save: Any, tmp_path: Path, mmengine_loader: Any
) -> None:
    text = poison(tmp_path)
    content = {'state_dict': {'config': torch.ones(1), 'w': torch.zeros(1)}, 'epoch': 3, **place(text)}
    loaded = mmengine_loader.load_checkpoint(save(content))
    assert 'ran' in repr(place(text)) and 'ran' not in repr(loaded)
    assert loaded['epoch'] == 3 and loaded['state_dict'].keys() == {'config', 'w'}


@pytest.mark.parametrize('scheme', ['mmcls', 'modelzoo', 'open-mmlab', 'openmmlab', 's3', 'torchvision', 'pavi'])
def test_registered_loader_opens_every_scheme_of_mmengine_as_data(
    scheme: str, save: Any, tmp_path: Path, mmengine_loader: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once with a pickle that runs a command, once with config text."""
    from mmengine.fileio import get_local_path
    from mmengine.runner import checkpoint

    monkeypatch.setenv('MMENGINE_HOME', str(tmp_path))
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path))
    (tmp_path / 'checkpoints').mkdir()
    (tmp_path / 'open_mmlab.json').write_text('{"x": "checkpoints/x.pth"}')
    for table in ('torchvision', 'mmcls'):
        monkeypatch.setattr(checkpoint, f'get_{table}_models', lambda: {'x': 'https://example.org/x.pth'})
    monkeypatch.setattr('mmengine.fileio.get_local_path', lambda _: get_local_path(tmp_path / 'checkpoints/x.pth'))

    content = {'state_dict': {'backbone.w': torch.ones(1)}, 'meta': {'cfg': poison(tmp_path)}}
    Path(save({**content, 'x': Reduced(os.system, f'touch {tmp_path}/ran')})).rename(tmp_path / 'checkpoints/x.pth')
    with pytest.raises(CheckpointError, match='cannot be opened as data' if scheme == 'pavi' else r'system`'):
        mmengine_loader.load_checkpoint(f'{scheme}://x')
    if scheme != 'pavi':
        Path(save(content)).rename(tmp_path / 'checkpoints/x.pth')
        loaded = mmengine_loader.load_checkpoint(f'{scheme}://x')
        assert list(loaded['state_dict']) == ['w' if scheme == 'mmcls' else 'backbone.w'] and not loaded.get('meta')
    assert not (tmp_path / 'ran').exists()


@pytest.fixture(params=['Runner', 'FlexibleRunner'])
def resume(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """Resumes a training of nothing from a file; returns its runner."""
    from mmengine import runner
    from mmengine.model import BaseModel

    class Model(BaseModel):
        def __init__(self) -> None:
            super().__init__()
            self.w = torch.nn.Parameter(torch.zeros(1))

        def forward(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
            return {'loss': self.w.sum()}

    def run(path: str) -> Any:
        resumed = getattr(runner, request.param)(
            Model(),
            work_dir=str(tmp_path / 'work'),
            resume=True,
            load_from=path,
            optim_wrapper={'optimizer': {'type': 'SGD', 'lr': 0.1}},
            train_cfg={'by_epoch': True, 'max_epochs': 1},
            train_dataloader={
                'dataset': [torch.zeros(1)],
                'batch_size': 1,
                'num_workers': 0,
                'sampler': {'type': 'DefaultSampler'},
            },
            experiment_name=str(tmp_path),
        )
        resumed.train()
        return resumed

    return run


def test_resuming_runs_no_config_text_and_goes_on_with_the_log(
    resume: Any, tmp_path: Path, mmengine_loader: Any
) -> None:
    text, path = poison(tmp_path), tmp_path / 'checkpoint.pth'
    hub = {
        'log_scalars': {'train/loss': HistoryBuffer([5.0], [1])},
        'runtime_info': {'cfg': text, 'best_score': 0.5},
        'resumed_keys': {'train/loss': True, 'cfg': True, 'best_score': True},
    }
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1).state_dict()
    torch.save(
        {
            'state_dict': {'w': torch.ones(1)},
            'optimizer': optimizer,
            'message_hub': hub,
            'meta': {'epoch': 1, 'iter': 1, 'cfg': text, 'config': text, 'seed': 0},
        },
        path,
    )
    runner = resume(str(path))
    assert not (tmp_path / 'ran').exists()
    assert runner.epoch == 1 and runner.message_hub.get_info('best_score') == 0.5
    assert runner.message_hub.get_scalar('train/loss').max() == 5
    assert 'ran' not in runner.message_hub.get_info('cfg')  # it would be in the next checkpoint


def test_registered_loader_gives_no_path_that_resuming_would_remove(
    save: Any, tmp_path: Path, mmengine_loader: Any
) -> None:
    best = {'best_ckpt': '/elsewhere/best_mIoU_epoch_3.pth', 'best_ckpt_AP': '/home/me/.ssh', 'best_ckpt_AR': 7}
    path = save({'message_hub': {'runtime_info': best}})
    expected = {'best_ckpt': str(tmp_path / 'best_mIoU_epoch_3.pth')}
    assert mmengine_loader.load_checkpoint(path)['message_hub']['runtime_info'] == expected


def test_registered_loader_downloads_once_and_opens_weights_only(
    save: Any, tmp_path: Path, mmengine_loader: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
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
