"""Shared by the tools' tests: miniature COCO, and running a tool as a user does."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from .toy_runs import Toy

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / 'configs/retinanet_evm_t.py'

Run = Callable[..., subprocess.CompletedProcess]


@pytest.fixture(scope='session')
def run_tool() -> Run:
    """Run ``tools/<name>`` in a folder outside the repository; returns the finished process with its output."""

    def run(name: str, *arguments: object, cwd: Path) -> subprocess.CompletedProcess:
        # One thread: the pictures are tiny, and others may be running.
        environment = {**os.environ, 'OMP_NUM_THREADS': '1'}
        return subprocess.run(
            [sys.executable, str(ROOT / 'tools' / name), *map(str, arguments)],
            cwd=cwd,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )

    return run


@pytest.fixture(scope='session')
def mini_coco(run_tool: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four training and two validation pictures in COCO's layout."""
    out = tmp_path_factory.mktemp('data')
    done = run_tool(
        'make_mini_data.py',
        '--out',
        out,
        '--only',
        'coco',
        '--image-size',
        96,
        '--train-images',
        4,
        '--val-images',
        2,
        cwd=out,
    )
    assert done.returncode == 0, done.stderr
    return out / 'coco'


@pytest.fixture(scope='session')
def small_run(mini_coco: Path) -> list[str]:
    """The changes that make the real config run in seconds without a download."""
    return [
        f'data_root={mini_coco}',
        'model.backbone.init_cfg=None',
        'train_dataloader.batch_size=2',
        'train_cfg.max_epochs=1',
        'train_dataloader.dataset.pipeline.2.scale=(96,96)',
        *(f'{phase}_dataloader.dataset.pipeline.1.scale=(96,96)' for phase in ('val', 'test')),
    ]


@pytest.fixture(scope='session')
def trained(run_tool: Run, small_run: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Work folder of two iterations and one evaluation of configs/retinanet_evm_t.py through tools/train.py."""
    work = tmp_path_factory.mktemp('work')
    done = run_tool('train.py', CONFIG, '--work-dir', work, '--cfg-options', *small_run, cwd=work)
    (work / 'train.log').write_text(done.stdout + done.stderr)
    assert done.returncode == 0, done.stderr[-4000:]
    return work


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture) -> Toy:
    """A folder for training runs of milliseconds."""
    monkeypatch.chdir(tmp_path)
    return Toy(tmp_path, capfd)
