"""--resume continues from the newest checkpoint in the run's own folder that opens, or refuses."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from mmevm.checkpoint import load_file

from .toy import EPOCH, read
from .toy_runs import Toy, lines

pytestmark = pytest.mark.openmmlab

BEST = 'default_hooks.checkpoint.save_best=toy/score default_hooks.checkpoint.rule=greater'


@pytest.fixture(scope='module')
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of :func:`trained`; checkpoints have its path in them."""
    return tmp_path_factory.mktemp('latest') / 'home'


@pytest.fixture
def trained(home: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture) -> Toy:
    """A folder with two epochs' checkpoints and the best one, trained once and restored for each test."""
    backup = home.with_name('backup')
    shutil.rmtree(home, ignore_errors=True)
    if backup.exists():
        shutil.copytree(backup, home)
    home.mkdir(exist_ok=True)
    monkeypatch.chdir(home)
    toy = Toy(home, capfd)
    if not backup.exists():
        toy.train(options=BEST)
        read(toy.folder)
        shutil.copytree(home, backup)
    assert toy.names() == ['best_toy_score_epoch_2.pth', 'epoch_1.pth', 'epoch_2.pth']
    return toy


def resumed_at(toy: Toy, *flags: str, options: str = 'train_cfg.max_epochs=3') -> int:
    """The first iteration of a resumed run."""
    toy.train(*(flags or ['--resume']), options=options)
    return read(toy.folder)[0]['iter']


def cut(path: Path) -> None:
    """What a kill or a full disk used to leave."""
    path.write_bytes(path.read_bytes()[:-200])


def scribble(path: Path) -> None:
    """What a bad sector does: the weights change, and torch opens the file as before."""
    weight = load_file(path)['state_dict']['linear.weight'].numpy().tobytes()
    content = path.read_bytes()
    assert weight in content
    path.write_bytes(content.replace(weight, bytes(len(weight)), 1))
    load_file(path)


def empty(path: Path) -> None:
    """What a machine that lost its power leaves."""
    path.write_bytes(b'')


def test_without_last_checkpoint_the_newest_in_the_folder_is_taken(trained: Toy) -> None:
    os.remove(trained.work / 'last_checkpoint')
    # Neither is what was written last, nor what comes last by its name.
    os.utime(trained.work / 'epoch_1.pth')
    assert resumed_at(trained) == 2 * EPOCH


def test_numbers_count_not_letters(toy: Toy) -> None:
    toy.train(options='train_cfg.max_epochs=10 default_hooks.checkpoint.max_keep_ckpts=2')
    assert toy.names() == ['epoch_10.pth', 'epoch_9.pth']
    read(toy.folder)
    assert resumed_at(toy, options='train_cfg.max_epochs=11') == 10 * EPOCH


@pytest.mark.parametrize('damage', [cut, scribble, empty])
def test_what_does_not_open_is_named_and_passed_over(damage: Callable[[Path], None], trained: Toy) -> None:
    damage(trained.work / 'epoch_2.pth')
    log = trained.train('--resume')
    (skipped,) = lines(log, 'Skipped')
    assert f'Cannot read {trained.work}/epoch_2.pth' in skipped
    assert read(trained.folder)[0]['iter'] == EPOCH


@pytest.mark.parametrize('kept', ['torn', 'best', 'noted'])
def test_a_run_without_a_checkpoint_that_opens_does_not_start_over(kept: str, trained: Toy) -> None:
    cut(trained.work / 'epoch_1.pth')
    cut(trained.work / 'epoch_2.pth')
    if kept != 'torn':
        os.remove(trained.work / 'epoch_1.pth')
        os.remove(trained.work / 'epoch_2.pth')
    if kept == 'noted':
        os.remove(trained.work / 'best_toy_score_epoch_2.pth')
    before = {path: path.read_bytes() for path in trained.work.glob('*.pth')}
    message = trained.train('--resume', status=2)
    assert f'--resume finds a training run in {trained.work}, and no checkpoint to continue from' in message
    assert {
        'torn': f'Cannot read {trained.work}/epoch_2.pth',
        'best': 'best_toy_score_epoch_2.pth contains weights only',
        'noted': f'names {trained.work}/epoch_2.pth, which is not there',
    }[kept] in message
    assert read(trained.folder) == [] and {path: path.read_bytes() for path in trained.work.glob('*.pth')} == before


def test_a_copied_folder_continues_by_itself(trained: Toy) -> None:
    copy = trained.folder / 'copy'
    shutil.copytree(trained.work, copy)
    original = {path: path.read_bytes() for path in trained.work.glob('*.pth')}
    os.remove(copy / 'epoch_2.pth')
    trained.work = copy
    assert resumed_at(trained, '--resume', '--work-dir', 'copy', options=BEST) == EPOCH
    # The best one so far is named by its path in the original folder, too, and a better one replaces it.
    assert {path: path.read_bytes() for path in (trained.folder / 'work').glob('*.pth')} == original


def test_a_moved_folder_continues_there(trained: Toy) -> None:
    os.rename(trained.work, trained.folder / 'moved')
    assert resumed_at(trained, '--resume', '--work-dir', 'moved') == 2 * EPOCH


def test_resume_without_anything_yet_begins(toy: Toy) -> None:
    log = toy.train('--resume')
    assert 'No checkpoint in work yet' in log and read(toy.folder)[0]['iter'] == 0


def test_a_config_that_says_resume_continues_as_the_flag_does(trained: Toy) -> None:
    os.remove(trained.work / 'last_checkpoint')
    trained.train(options='resume=True train_cfg.max_epochs=3')
    assert read(trained.folder)[0]['iter'] == 2 * EPOCH


def test_checkpoints_of_another_folder_and_name_are_found(toy: Toy) -> None:
    options = 'default_hooks.checkpoint.out_dir=elsewhere default_hooks.checkpoint.filename_tmpl=after_{}.pth'
    toy.train(options=options)
    assert sorted(os.listdir('elsewhere/work')) == ['.training.lock', 'after_1.pth', 'after_2.pth']
    read(toy.folder)
    assert resumed_at(toy, options=f'{options} train_cfg.max_epochs=3') == 2 * EPOCH


def test_a_run_that_starts_over_warns_of_what_it_overwrites_and_is_the_one_to_continue(trained: Toy) -> None:
    # Runs of the same second could not be distinguished.
    old = load_file(trained.work / 'epoch_2.pth')
    old['meta']['experiment_name'] = 'config_20200101_000000'
    torch.save(old, trained.work / 'epoch_2.pth')
    log = trained.train(options='train_cfg.max_epochs=1')
    assert f'{trained.work} has checkpoints of an earlier run' in lines(log, 'WARNING')[0]
    read(trained.folder)
    assert resumed_at(trained, options='train_cfg.max_epochs=2') == EPOCH


def test_a_path_is_taken_as_it_is(trained: Toy) -> None:
    assert resumed_at(trained, '--resume', trained.work / 'epoch_1.pth') == EPOCH
