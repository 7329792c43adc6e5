"""One training run at a time in a folder; a killed one does not block it."""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from filelock import FileLock

from mmevm.apis.evaluate import main as run_test
from mmevm.engine.runner.storage import exclusive
from mmevm.errors import UsageError

from .toy_runs import Toy

pytestmark = pytest.mark.openmmlab

# Locks a folder and waits to be killed. A process that loads data outlives it, and with older versions of filelock the
# lock is that one's, too.
HOLDER = """
import fcntl, json, os, socket, sys, time
folder = sys.argv[1]
os.mkdir(folder)
lock = open(f'{folder}/.training.lock', 'w')
fcntl.flock(lock, fcntl.LOCK_EX)
with open(f'{folder}/.training.json', 'w') as file:
    json.dump(dict(pid=os.getpid(), host=socket.gethostname(), since='2026-01-01 00:00:00'), file)
if os.fork():
    print('locked', flush=True)
    time.sleep(60)
time.sleep(3)
"""


@pytest.fixture
def holder(tmp_path: Path) -> subprocess.Popen:
    """Another process that trains in ``work``."""
    process = subprocess.Popen([sys.executable, '-c', HOLDER, tmp_path / 'work'], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == 'locked\n'
    yield process
    process.kill()
    process.wait()


def test_a_second_run_is_refused_and_a_killed_one_is_followed(holder: subprocess.Popen, toy: Toy) -> None:
    message = toy.train(status=2)
    assert f'Another training run is writing to {toy.work} (process {holder.pid} on {socket.gethostname()}' in message
    assert '--work-dir' in message and f'delete {toy.work}/.training.lock' in message
    # Nothing of it is in the folder.
    assert set(os.listdir(toy.work)) == {'.training.lock', '.training.json'}
    # Another spelling is the same folder.
    os.symlink(toy.work, toy.folder / 'link')
    toy.train('--work-dir', 'link', status=2)
    holder.kill()
    holder.wait()
    toy.train(options='train_cfg.max_epochs=1')
    assert toy.names() == ['epoch_1.pth'] and not (toy.work / '.training.json').exists()


def test_two_runs_in_one_process_are_kept_apart(toy: Toy) -> None:
    with exclusive(['work']):
        assert f'process {os.getpid()} on' in toy.train(status=2)


def test_an_evaluation_is_not_kept_out(holder: subprocess.Popen, toy: Toy) -> None:
    toy.configure('test_dataloader, test_evaluator, test_cfg = val_dataloader, val_evaluator, dict()')
    toy.train('--work-dir', 'other')
    assert run_test(['config.py', 'other/epoch_2.pth', '--work-dir', 'work']) == 0


def test_runs_that_share_no_work_folder_but_one_for_checkpoints_are_kept_apart(toy: Toy) -> None:
    with exclusive(['checkpoints/work']):
        message = toy.train(options='default_hooks.checkpoint.out_dir=checkpoints', status=2)
    assert f'is writing to {toy.folder}/checkpoints/work' in message


def test_a_run_of_another_machine_is_named_and_not_waited_for(tmp_path: Path) -> None:
    with FileLock(tmp_path / '.training.lock'):
        owner = dict(pid=1, host='node7', since='2026-01-01 00:00:00')
        (tmp_path / '.training.json').write_text(json.dumps(owner))
        begin = time.monotonic()
        with pytest.raises(UsageError, match=r'process 1 on node7, since 2026-01-01 00:00:00'), exclusive([tmp_path]):
            pass
        assert time.monotonic() - begin < 2


@pytest.mark.parametrize('note', ['', '[]', '{"pid": 1}', 'no json'])
def test_a_note_that_cannot_be_read_does_not_matter(note: str, tmp_path: Path) -> None:
    (tmp_path / '.training.json').write_text(note)
    with exclusive([tmp_path]):
        assert json.loads((tmp_path / '.training.json').read_text())['pid'] == os.getpid()
        (tmp_path / '.training.json').write_text(note)
        with pytest.raises(UsageError, match='unknown process'), exclusive([tmp_path]):
            pass


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / 'file').write_text('')
    with pytest.raises(UsageError, match=r'file cannot be a work directory: .*exists'), exclusive([tmp_path / 'file']):
        pass


def test_a_file_system_without_locks_is_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise NotImplementedError('FileSystem does not appear to support flock')

    monkeypatch.setattr(FileLock, 'acquire', refuse)
    with exclusive([tmp_path]):
        pass
    assert 'does not support locks: make sure that no other training run writes there' in ''.join(capfd.readouterr())
