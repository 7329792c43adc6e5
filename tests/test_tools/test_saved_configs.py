"""The config that a run leaves in its work directory: later runs from it or beside it do not change it."""

import os
from pathlib import Path

import pytest
from mmengine.config import Config

from mmevm.apis.evaluate import main as run_test
from mmevm.apis.train import main as run_train
from mmevm.engine.runner.configs import renamed

from .toy import EPOCH, read
from .toy_runs import Toy, forget_runs

pytestmark = pytest.mark.openmmlab

TESTS = 'test_dataloader, test_evaluator, test_cfg = val_dataloader, val_evaluator, dict()\n'


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture) -> Toy:
    """A folder in which a run of two epochs has been trained."""
    monkeypatch.chdir(tmp_path)
    toy = Toy(tmp_path, capfd)
    toy.configure(TESTS)
    toy.train()
    read(toy.folder)
    forget_runs()
    return toy


@pytest.mark.parametrize('config', ['work/config.py', 'config.py'])
def test_an_evaluation_leaves_it_alone(config: str, run: Toy) -> None:
    before = (run.work / 'config.py').read_bytes()
    assert run_test([config, 'work/epoch_1.pth', '--work-dir', 'work', '--cfg-options', 'randomness.seed=5']) == 0
    assert (run.work / 'config.py').read_bytes() == before


def test_an_evaluation_writes_its_own(run: Toy) -> None:
    assert (
        run_test(['config.py', 'work/epoch_1.pth', '--work-dir', 'tested', '--cfg-options', 'randomness.seed=5']) == 0
    )
    assert Config.fromfile('tested/test_config.py').randomness.seed == 5


def test_a_run_from_the_config_of_an_evaluation_leaves_that_alone(run: Toy) -> None:
    arguments = ['work/epoch_1.pth', '--work-dir', 'work', '--cfg-options', 'randomness.seed=5']
    assert run_test(['config.py', *arguments]) == 0
    before = (run.work / 'test_config.py').read_bytes()
    assert run_test(['work/test_config.py', *arguments[:-1], 'randomness.seed=6']) == 0
    assert (run.work / 'test_config.py').read_bytes() == before


def test_another_name_changes_nothing_else(tmp_path: Path) -> None:
    (tmp_path / 'lazy.py').write_text('from torch.optim import AdamW\noptimizer = dict(type=AdamW, lr=1)\n')
    cfg = Config.fromfile(tmp_path / 'lazy.py', lazy_import=True)
    other = renamed(cfg, 'nowhere/test_config.py')
    assert other.filename == 'nowhere/test_config.py' and cfg.filename == str(tmp_path / 'lazy.py')
    assert other.to_dict() == cfg.to_dict() and 'AdamW' not in other.to_dict()
    assert renamed(Config(dict(a=1)), 'nowhere.py').a == 1


def test_training_from_it_leaves_it_alone(run: Toy) -> None:
    before = (run.work / 'config.py').read_bytes()
    assert run_train(['work/config.py', '--resume', '--cfg-options', 'train_cfg.max_epochs=3']) == 0
    assert read(run.folder)[0]['iter'] == 2 * EPOCH
    assert (run.work / 'config.py').read_bytes() == before


def test_a_resumed_run_leaves_one_that_does_not_resume(run: Toy) -> None:
    run.train('--resume', options='train_cfg.max_epochs=3')
    saved = Config.fromfile('work/config.py')
    assert (saved.resume, saved.load_from, saved.train_cfg.max_epochs) == (False, None, 3)
    forget_runs()
    read(run.folder)
    assert run_train(['work/config.py', '--work-dir', 'anew']) == 0
    assert read(run.folder)[0]['iter'] == 0


def test_an_evaluation_does_not_resume(run: Toy) -> None:
    os.rename(run.work / 'epoch_2.pth', run.folder / 'epoch_2.pth')
    run.capfd.readouterr()
    assert (
        run_test(['config.py', 'epoch_2.pth', '--cfg-options', 'resume=True', 'train_dataloader.dataset.type=None'])
        == 0
    )
    out, err = run.capfd.readouterr()
    assert 'resumed epoch' not in out + err and 'Load checkpoint from' in out + err
