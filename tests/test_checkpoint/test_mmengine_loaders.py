"""MMEngine's checkpoint loader after `register_weights_only_loader`: no code, no config text, no foreign paths."""

import argparse
import os
from collections import Counter, OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer

from mmevm.checkpoint.weights_only import CheckpointError, register_weights_only_loader

from .conftest import Reduced

pytestmark = pytest.mark.openmmlab


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
