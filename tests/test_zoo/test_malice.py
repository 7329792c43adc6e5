"""A file that would run a command when it is unpickled: refused, and not run, through every way into the loader."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from mmengine.runner import CheckpointLoader

from mmevm import zoo
from mmevm.apis import evaluate, train
from mmevm.backbones import EfficientVMamba
from mmevm.checkpoint import CheckpointError, load_checkpoint, load_file
from mmevm.zoo import ENTRIES
from mmevm.zoo.__main__ import main as zoo_main

from .conftest import EVM, Malice, move_entry, pack
from .server import Server

pytestmark = pytest.mark.openmmlab
NAME = f'mmevm://{EVM}'


@pytest.fixture(params=[False, True], ids=['zip', 'legacy'])
def evil(request: pytest.FixtureRequest, trace: Path) -> bytes:
    """Weights with a command beside them."""
    return pack({'state_dict': {'weight': torch.zeros(3)}, 'meta': Malice(trace)}, legacy=request.param)


@pytest.fixture
def evil_file(evil: bytes, tmp_path: Path) -> Path:
    (tmp_path / 'evil.ckpt').write_bytes(evil)
    return tmp_path / 'evil.ckpt'


@pytest.fixture
def evil_zoo(evil: bytes, server: Server, hub: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub's file is the malicious one, and its size and hash are right."""
    server.files[hub] = evil
    move_entry(monkeypatch, EVM, ENTRIES[EVM].url, size=len(evil))


def _init_cfg(source: object) -> None:
    EfficientVMamba('tiny', init_cfg=dict(type='Pretrained', checkpoint=str(source))).init_weights()


def test_the_file_would_run_its_command(evil_file: Path, trace: Path) -> None:
    torch.load(evil_file, weights_only=False)
    assert trace.exists()


BY_NAME: dict[str, Callable[[], object]] = {
    'zoo.fetch': lambda: zoo.fetch(EVM),
    'zoo.load': lambda: zoo.load(EVM),
    'init_cfg': lambda: _init_cfg(NAME),
    'load_checkpoint': lambda: load_checkpoint(EfficientVMamba('tiny'), NAME),
    'load_from': lambda: CheckpointLoader.load_checkpoint(NAME),
}


@pytest.mark.parametrize('way', BY_NAME.values(), ids=BY_NAME.keys())
def test_by_name_it_is_refused_and_kept_aside(way: Callable, evil_zoo: None, trace: Path, cache: Path) -> None:
    for _ in range(2):
        with pytest.raises(CheckpointError, match=r'it asks for `posix\.system`'):
            way()
    assert not trace.exists()
    assert [path.name.partition('.damaged-')[0] for path in cache.iterdir() if path.suffix != '.lock'] == [
        'efficient_vmamba_tiny.ckpt'
    ]


def test_put_into_the_cache_by_hand_it_is_refused(
    evil: bytes, evil_zoo: None, trace: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv('MMEVM_OFFLINE', '1')
    cache.mkdir(parents=True)
    (cache / 'efficient_vmamba_tiny.ckpt').write_bytes(evil)
    with pytest.raises(CheckpointError, match='switched off'):
        zoo.load(EVM)
    assert not trace.exists() and not (cache / 'efficient_vmamba_tiny.ckpt').exists()


BY_PATH: dict[str, Callable[[Path], object]] = {
    'load_file': load_file,
    'load_checkpoint': lambda path: load_checkpoint(EfficientVMamba('tiny'), path),
    'init_cfg': _init_cfg,
    'zoo.convert': lambda path: zoo.convert(path, path.with_name('out.pth')),
}


@pytest.mark.parametrize('way', BY_PATH.values(), ids=BY_PATH.keys())
def test_by_path_it_is_refused(way: Callable, evil_file: Path, trace: Path) -> None:
    with pytest.raises(CheckpointError, match=r'evil\.ckpt: it asks for `posix\.system`'):
        way(evil_file)
    assert not trace.exists() and not evil_file.with_name('out.pth').exists()


def test_by_address_it_is_refused(
    evil: bytes, server: Server, trace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    server.files['/evil.ckpt'] = evil
    with pytest.raises(CheckpointError, match=r'posix\.system'):
        _init_cfg(f'{server.url}/evil.ckpt')
    assert not trace.exists()


@pytest.mark.parametrize('command', ['verify', 'convert'])
def test_the_zoo_tool_refuses_it(command: str, evil_file: Path, trace: Path, capsys: pytest.CaptureFixture) -> None:
    target = [str(evil_file.with_name('out.pth'))] if command == 'convert' else []
    assert zoo_main([command, str(evil_file), *target]) == 2
    assert 'it asks for `posix.system`' in capsys.readouterr().err
    assert not trace.exists()


def test_the_zoo_tool_runs_no_config_text(evm_state: dict, trace: Path, tmp_path: Path) -> None:
    source, target = tmp_path / 'trained.pth', tmp_path / 'out.pth'
    text = f'open({str(trace)!r}, "w")'
    content = {'meta': {'cfg': text, 'config': text}, 'message_hub': {'runtime_info': {'cfg': text}}}
    source.write_bytes(pack({'state_dict': evm_state, **content}))
    assert zoo_main(['verify', str(source)]) == 0
    assert zoo_main(['convert', str(source), str(target)]) == 0
    assert not trace.exists() and text.encode() in source.read_bytes() and b'open(' not in target.read_bytes()


TOOLS: dict[str, Callable[[str, str], int]] = {
    'test': lambda config, source: evaluate.main([config, source, '--work-dir', 'work']),
    'train': lambda config, source: train.main([config, '--work-dir', 'work', '--cfg-options', f'load_from={source}']),
    'resume': lambda config, source: train.main([config, '--work-dir', 'work', '--resume', source]),
}


@pytest.mark.parametrize('tool', TOOLS.values(), ids=TOOLS.keys())
@pytest.mark.parametrize('evil', [False], indirect=True, ids=['zip'])
def test_the_tools_refuse_it(
    tool: Callable,
    config: str,
    evil_zoo: None,
    evil_file: Path,
    trace: Path,
    tmp_path: Path,
    tools_in_process: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    monkeypatch.chdir(tmp_path)
    for source in (str(evil_file), NAME):
        assert tool(config, source) == 2
        no_name = source == NAME and tool is TOOLS['resume']
        reason = 'the zoo has weights alone' if no_name else 'it asks for `posix.system`'
        assert reason in capsys.readouterr().err
    assert not trace.exists() and list(tmp_path.glob('work/*.pth')) == []
