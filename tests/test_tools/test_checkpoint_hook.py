"""The last complete checkpoint survives whatever happens to the next one."""

import errno
import logging
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.visualization import LocalVisBackend

from mmevm.checkpoint import load_file
from mmevm.engine.hooks import checkpoint as checkpoint_hook
from mmevm.engine.runner import storage

from .test_storage import failing
from .toy import EPOCH, ToyRecorder, read
from .toy_runs import Toy, lines

pytestmark = pytest.mark.openmmlab

BEST = 'default_hooks.checkpoint.save_best=toy/score default_hooks.checkpoint.rule=greater'
KEEP_ONE = 'default_hooks.checkpoint.max_keep_ckpts=1'


def fail_on(name: str, monkeypatch: pytest.MonkeyPatch, number: int = errno.ENOSPC) -> None:
    """Let the system fail when a file of this name is renamed to its place, whole or not."""
    replace = os.replace

    def fail(draft: Path, path: Path) -> None:
        if Path(path).name == name:
            failing(number)()
        replace(draft, path)

    monkeypatch.setattr(storage.os, 'replace', fail)


def state(folder: Path) -> dict[str, bytes]:
    """The files of a run that it can continue from."""
    return {
        path.name: path.read_bytes()
        for path in folder.iterdir()
        if path.is_file() and path.name[0] != '.' and path.suffix != '.py'
    }


@pytest.mark.parametrize('number', [errno.ENOSPC, errno.EROFS, errno.EDQUOT])
def test_a_full_disk_keeps_the_last_checkpoint(number: int, toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    toy.train(options=f'{KEEP_ONE} train_cfg.max_epochs=1')
    before = state(toy.work)
    assert set(before) == {'epoch_1.pth', 'last_checkpoint'}
    replace = os.replace
    fail_on('epoch_2.pth', monkeypatch, number)
    message = toy.train('--resume', options=KEEP_ONE, status=2)
    assert f'Cannot write {toy.work}/epoch_2.pth: ' in message
    assert f'The last complete checkpoint is {toy.work}/epoch_1.pth; once' in message and 'Traceback' not in message
    assert state(toy.work) == before
    monkeypatch.setattr(storage.os, 'replace', replace)
    read(toy.folder)
    toy.train('--resume', options=KEEP_ONE)
    assert read(toy.folder)[0]['iter'] == EPOCH and toy.names() == ['epoch_2.pth']


def test_a_full_disk_keeps_the_best_checkpoint(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    fail_on('best_toy_score_epoch_2.pth', monkeypatch)
    toy.train(options=f'{BEST} {KEEP_ONE}', status=2)
    # The second epoch's was saved, and the first one's deleted, before the evaluation.
    assert toy.names() == ['best_toy_score_epoch_1.pth', 'epoch_2.pth']
    assert load_file(toy.work / 'best_toy_score_epoch_1.pth')['meta']['epoch'] == 1


def test_a_full_disk_keeps_the_note_of_the_last_checkpoint(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    toy.train(options=f'{KEEP_ONE} train_cfg.max_epochs=1')
    fail_on('last_checkpoint', monkeypatch)
    message = toy.train('--resume', options=KEEP_ONE, status=2)
    assert f'Cannot write {toy.work}/last_checkpoint' in message
    assert (toy.work / 'last_checkpoint').read_text() == f'{toy.work}/epoch_1.pth'
    assert toy.names() == ['epoch_1.pth', 'epoch_2.pth']


def test_a_full_disk_keeps_what_was_to_be_published(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        storage.os,
        'replace',
        lambda draft, path, replace=os.replace: (
            failing(errno.ENOSPC)() if '-' in Path(path).name else replace(draft, path)
        ),
    )
    message = toy.train(options="default_hooks.checkpoint.published_keys=['meta','state_dict']", status=2)
    assert 'the disk is full' in message and toy.names() == ['epoch_1.pth', 'epoch_2.pth']


def test_one_checkpoint_is_kept_and_the_older_goes_last(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    remove = storage.DurableBackend.remove
    monkeypatch.setattr(
        storage.DurableBackend,
        'remove',
        lambda self, path: (seen.append((Path(path).name, toy.names())), remove(self, path)),
    )
    toy.train(options=f'{BEST} {KEEP_ONE} train_cfg.max_epochs=3')
    assert seen[:2] == [
        ('epoch_1.pth', ['best_toy_score_epoch_1.pth', 'epoch_1.pth', 'epoch_2.pth']),
        ('best_toy_score_epoch_1.pth', ['best_toy_score_epoch_1.pth', 'best_toy_score_epoch_2.pth', 'epoch_2.pth']),
    ]
    assert toy.names() == ['best_toy_score_epoch_3.pth', 'epoch_3.pth']


def test_too_little_space_is_refused_before_training(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    toy.configure("optim_wrapper = dict(optimizer=dict(type='AdamW', lr=0.1))\ncustom_hooks += [dict(type='EMAHook')]")
    monkeypatch.setattr(checkpoint_hook, 'free_space', lambda path: 47)
    # Three numbers, their averages, and two moments each.
    message = toy.train(status=2)
    assert f'Not enough disk space for a checkpoint in {toy.work}: it takes at least 48 bytes and 47 bytes' in message
    assert read(toy.folder) == []


def test_logs_that_cannot_be_written_do_not_end_a_run(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    toy.configure(
        "vis_backends = [dict(type='LocalVisBackend')]\nvisualizer = dict(type='Visualizer', vis_backends=vis_backends)"
    )
    monkeypatch.setattr(LocalVisBackend, '_dump', failing(errno.ENOSPC))

    def fill_disk(self: ToyRecorder, runner: Any, batch_idx: int, data_batch: Any) -> None:
        for handler in runner.logger.handlers:
            if isinstance(handler, logging.FileHandler):
                handler.stream = open('/dev/full', 'w')

    monkeypatch.setattr(ToyRecorder, 'before_train_iter', fill_disk)
    log = toy.train()
    assert len(lines(log, 'what is logged meanwhile is lost')) == 1
    assert 'Logging error' not in log and len(read(toy.folder)) == 2 * EPOCH


def test_a_checkpoint_that_names_foreign_files_deletes_none_of_them(toy: Toy) -> None:
    toy.train(options=f'{BEST} train_cfg.max_epochs=1')
    content = load_file(toy.work / 'epoch_1.pth')
    foreign = toy.folder / 'iter_9.pth'
    foreign.write_text('')
    content['message_hub']['runtime_info'].update(best_ckpt=str(foreign), interrupt_ckpt='../iter_9.pth')
    content['message_hub']['resumed_keys'].update(interrupt_ckpt=True)
    torch.save(content, toy.work / 'epoch_1.pth')
    toy.train('--resume', options=BEST)
    assert foreign.exists() and 'best_toy_score_epoch_2.pth' in toy.names()
