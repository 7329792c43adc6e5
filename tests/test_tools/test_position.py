"""Resuming with other data: the epoch, and the share of it that is done, is what counts."""

from math import cos, pi
from pathlib import Path

import pytest
import torch

from mmevm.checkpoint import load_file
from mmevm.engine.hooks.position import convert

from .toy import EPOCH, read
from .toy_runs import Toy, lines

pytestmark = pytest.mark.openmmlab

# Saved in the middle of the second epoch.
MIDDLE = EPOCH + EPOCH // 2
BY_ITERATIONS = 'default_hooks.checkpoint.by_epoch=False default_hooks.checkpoint.interval={}'
CHANGES = {
    'larger-batch': ('train_dataloader.batch_size=4', 3, 'batch size 2 → 4'),
    'smaller-batch': ('train_dataloader.batch_size=1', 12, 'batch size 2 → 1'),
    'more-data': ('train_dataloader.dataset.size=20', 10, 'dataset size 12 → 20'),
    'less-data': ('train_dataloader.dataset.size=3', 2, 'dataset size 12 → 3'),
    'same-length': ('train_dataloader.batch_size=4 train_dataloader.dataset.size=24', 6, 'batch size 2 → 4'),
}


@pytest.mark.parametrize(('options', 'length', 'change'), CHANGES.values(), ids=CHANGES)
def test_every_remaining_epoch_is_trained_whole(options: str, length: int, change: str, toy: Toy) -> None:
    toy.train()
    read(toy.folder)
    log = toy.train('--resume', options=f'{options} train_cfg.max_epochs=4')
    trained = read(toy.folder)
    assert [line['iter'] for line in trained] == list(range(2 * length, 4 * length))
    assert [line['epoch'] for line in trained] == [2] * length + [3] * length
    for epoch in (2, 3):
        images = [image for line in trained if line['epoch'] == epoch for image in line['images']]
        assert len(set(images)) == len(images) == {'more-data': 20, 'less-data': 3}.get(change, len(images))
    (note,) = lines(log, 'Resuming with other data')
    assert change in note and 'continuing after epoch 2,' in note
    meta = load_file(toy.work / 'epoch_4.pth')['meta']
    assert (meta['epoch'], meta['iter'], meta['train_data']['epoch_length']) == (4, 4 * length, length)


@pytest.mark.parametrize(('options', 'length'), [(c[0], c[1]) for c in CHANGES.values()], ids=CHANGES)
def test_an_epoch_continues_at_the_share_that_was_done(options: str, length: int, toy: Toy) -> None:
    toy.train(options=f'{BY_ITERATIONS.format(MIDDLE)} default_hooks.checkpoint.save_last=False')
    assert toy.names() == [f'iter_{MIDDLE}.pth']
    read(toy.folder)
    log = toy.train('--resume', options=options)
    assert [line['iter'] for line in read(toy.folder)] == list(range(length + length // 2, 2 * length))
    assert f'after epoch 1 and {length // 2} of {length} iterations of the next' in lines(log, 'Resuming with')[0]


def test_nothing_is_logged_when_the_data_is_the_same(toy: Toy) -> None:
    toy.train(options='train_cfg.max_epochs=1')
    assert not lines(toy.train('--resume'), 'Resuming with')


def forget(path: Path, *names: str) -> None:
    """Make a checkpoint one of MMEngine's own, or of a run without its RuntimeInfoHook."""
    content = load_file(path)
    del content['meta']['train_data']
    for name in names:
        del content['message_hub']['runtime_info'][name]
    torch.save(content, path)


@pytest.mark.parametrize('names', [(), ('max_iters',)], ids=['lengths-of-the-run', 'end-of-an-epoch'])
def test_older_checkpoints_tell_the_length_of_an_epoch_by_other_numbers(names: tuple[str, ...], toy: Toy) -> None:
    toy.train()
    read(toy.folder)
    forget(toy.work / 'epoch_2.pth', *names)
    log = toy.train('--resume', options='train_dataloader.batch_size=4 train_cfg.max_epochs=3')
    assert [line['iter'] for line in read(toy.folder)] == [6, 7, 8]
    assert 'iterations per epoch 6 → 3' in lines(log, 'Resuming with')[0]


def test_older_checkpoints_of_half_an_epoch_continue_at_the_share(toy: Toy) -> None:
    toy.train(options=f'{BY_ITERATIONS.format(MIDDLE)} default_hooks.checkpoint.save_last=False')
    read(toy.folder)
    forget(toy.work / f'iter_{MIDDLE}.pth')
    toy.train('--resume', options='train_dataloader.batch_size=1')
    assert [line['iter'] for line in read(toy.folder)] == list(range(18, 24))


@pytest.mark.parametrize(
    ('place', 'old', 'new', 'expected'),
    [
        ((2, 8), 4, 2, 4),
        ((2, 4), 2, 4, 8),
        ((2, 8), 4, 4, 8),
        ((1, 6), 4, 8, 12),
        ((1, 8), 4, 3, 6),
        ((1, 7), 4, 3, 5),
        ((3, 10), 2, 4, 12),
        ((0, 0), 5, 7, 0),
    ],
    ids=['shorter', 'longer', 'same', 'half', 'done-but-uncounted', 'rounded-down', 'impossible', 'start'],
)
def test_convert_keeps_epoch_and_share(place: tuple[int, int], old: int, new: int, expected: int) -> None:
    assert convert(*place, old, new) == expected


SCHEDULE = """
param_scheduler = [
    dict(type='LinearLR', start_factor=0.5, by_epoch=True, end=1, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', T_max=3, by_epoch=True, begin=1, end=4, convert_to_iter_based=True),
    dict(type='MultiStepLR', milestones=[3], gamma=0.1, by_epoch=True, end=4),
    dict(type='ConstantLR', factor=0.5, by_epoch=False, end=20)]
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=4)
"""


def test_schedules_in_epochs_keep_their_place_and_those_in_iterations_their_count(toy: Toy) -> None:
    toy.configure(SCHEDULE)
    toy.train(options='train_cfg.max_epochs=2')
    before = [line['lr'] for line in read(toy.folder)]
    toy.train('--resume', options='train_dataloader.batch_size=1')
    after = [line['lr'] for line in read(toy.folder)]
    assert len(before) == 12 and len(after) == 24
    # The cosine over three epochs, of six iterations before and of twelve from the second on.
    cosine = [0.5 * (1 + cos(pi * (12 + step) / 36)) for step in range(24)]
    # The constant factor ends after 20 iterations that were run, twelve of them before.
    factors = [(0.5 if step < 7 else 1) * (1 if step < 12 else 0.1) for step in range(24)]
    expected = [0.1 * share * factor for share, factor in zip(cosine, factors, strict=True)]
    assert after == pytest.approx(expected, rel=1e-6)
    assert before[-1] > after[0] > after[6]


def test_a_checkpoint_without_optimizer_starts_a_new_one(toy: Toy) -> None:
    toy.train(options='train_cfg.max_epochs=1 default_hooks.checkpoint.save_optimizer=False')
    assert lines(toy.train('--resume'), 'has no optimizer state')


def test_fewer_epochs_than_are_done_leave_nothing_to_train(toy: Toy) -> None:
    toy.train()
    read(toy.folder)
    log = toy.train('--resume', options='train_cfg.max_epochs=1')
    assert lines(log, 'Nothing is left to train: 2 epochs are done, and train_cfg.max_epochs is 1')
    assert read(toy.folder) == [] and toy.names() == ['epoch_1.pth', 'epoch_2.pth']


ITERATIONS = """
train_cfg = dict(type='IterBasedTrainLoop', max_iters=8, val_interval=100)
train_dataloader.update(sampler=dict(type='InfiniteSampler', shuffle=True))
default_hooks = dict(checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=4))
"""


def test_a_run_by_iterations_keeps_its_count_and_says_that_a_batch_has_changed(toy: Toy) -> None:
    toy.configure(ITERATIONS)
    toy.train(options='train_cfg.max_iters=4')
    read(toy.folder)
    log = toy.train('--resume', options='train_dataloader.batch_size=3')
    trained = read(toy.folder)
    assert [line['iter'] for line in trained] == [4, 5, 6, 7] and {len(line['images']) for line in trained} == {3}
    (note,) = lines(log, 'Resuming with other data')
    assert 'batch size 2 → 3' in note and 'continuing at iteration 4' in note


def test_accumulated_gradients_are_counted_from_the_converted_iteration(toy: Toy) -> None:
    toy.configure('optim_wrapper.update(accumulative_counts=4)')
    toy.train(options='train_cfg.max_epochs=1')
    # Six iterations become twelve, the end of three accumulations; MMEngine warns where it is not one.
    log = toy.train('--resume', options='train_dataloader.batch_size=1')
    assert not lines(log, 'is not divisible by')


FLEXIBLE = """
runner_type = 'FlexibleRunner'
strategy = dict(type='SingleDeviceStrategy')
optim_wrapper.update(type='OptimWrapper')
default_hooks['checkpoint'].update(save_best='toy/score', rule='greater')
param_scheduler = []
"""


def test_flexible_runner_saves_the_epoch_that_it_is_in_and_continues_there(toy: Toy) -> None:
    toy.configure(FLEXIBLE)
    toy.train()
    read(toy.folder)
    # MMEngine saves it again with the best score, and counts one epoch more then.
    meta = load_file(toy.work / 'epoch_2.pth')['meta']
    assert (meta['epoch'], meta['iter']) == (2, 12)
    toy.train('--resume', options='train_dataloader.batch_size=4 train_cfg.max_epochs=3')
    assert [line['iter'] for line in read(toy.folder)] == [6, 7, 8]
