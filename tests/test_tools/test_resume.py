"""A training run that is killed in mid-epoch and resumed continues as if nothing had happened."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import CheckpointHook
from mmengine.registry import HOOKS, LOOPS
from mmengine.runner import EpochBasedTrainLoop

from mmevm.apis.train import main as run_train
from mmevm.checkpoint import load_file
from mmevm.engine.hooks.checkpoint import DurableCheckpointHook
from mmevm.engine.runner.resume import ResumableIterLoop, make_resumable
from mmevm.errors import UsageError

from .recorder import Killed, read
from .small_classifier import BATCH, TRAIN_IMAGES, write_config, write_pictures

pytestmark = pytest.mark.openmmlab

EPOCH = TRAIN_IMAGES // BATCH
# In the middle of the second of two epochs; the killed run gets one iteration further than its last checkpoint.
SAVED, KILLED, LAST = EPOCH + 1, EPOCH + 2, 2 * EPOCH
# The config has no seed; stochastic depth, MixUp and CutMix draw random numbers in the training process.
CHANGES = {
    'epochs': f"""
model = dict(backbone=dict(drop_path_rate=0.3))
train_crop = [dict(type='RandomResizedCrop', scale=32), dict(type='RandomFlip', prob=0.5, direction='horizontal')]
default_hooks = dict(checkpoint=dict(by_epoch=False, interval={SAVED}))
""",
    # MMEngine's own loop over iterations repeats or skips the images up to the checkpoint, by version, and their
    # augmentation differs.
    'iterations': f"""
model = dict(backbone=dict(drop_path_rate=0.3))
train_cfg = dict(_delete_=True, by_epoch=False, max_iters={LAST}, val_interval={LAST})
log_processor = dict(by_epoch=False)
loader.update(sampler=dict(type='InfiniteSampler', shuffle=True))
default_hooks = dict(checkpoint=dict(by_epoch=False, interval={SAVED}))
""",
}


@pytest.mark.parametrize('kind', CHANGES)
def test_resume_after_a_kill_continues_with_the_same_loss(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = write_config(tmp_path / 'config.py', write_pictures(tmp_path / 'data'), CHANGES[kind])
    command = [str(config), '--work-dir', 'work', '--cfg-options']
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Killed):
        run_train([*command, f'custom_hooks.1.kill_at={KILLED}'])
    torch.manual_seed(1)  # nothing that this process has drawn may help
    before = read(tmp_path / 'losses')
    assert [line['iter'] for line in before] == list(range(KILLED))
    assert re.search(rf'iter_{SAVED}\.pth$', (tmp_path / 'work/last_checkpoint').read_text())

    assert run_train([*command[:3], '--resume', '--cfg-options', 'custom_hooks.1.folder=resumed']) == 0
    after = read(tmp_path / 'resumed')
    assert [line['iter'] for line in after] == list(range(SAVED, LAST))
    assert after[0]['images'] == before[SAVED]['images']
    assert after[0]['loss'] == pytest.approx(before[SAVED]['loss'], rel=1e-5)
    # The interrupted epoch has every image once.
    epoch = [name for line in [*before[EPOCH:SAVED], *after] for name in line['images']]
    assert sorted(epoch) == sorted(name for line in before[:EPOCH] for name in line['images'])
    assert len(set(epoch)) == TRAIN_IMAGES
    name = f'iter_{LAST}.pth'
    steps = load_file(tmp_path / 'work' / name)['optimizer']['state'].values()
    assert {int(state['step']) for state in steps} == {LAST}


def test_make_resumable_takes_names_and_classes_and_what_it_once_wrote_itself() -> None:
    old = dict(type='mmengine.ReseedHook')
    config = Config(
        dict(
            train_cfg=dict(type='mmengine.ResumableEpochLoop', max_epochs=2),
            default_hooks=dict(
                checkpoint=dict(type=CheckpointHook, interval=3), timer=dict(type='IterTimerHook'), logger=None
            ),
            custom_hooks=[old, dict(type='EMAHook'), dict(type='mmengine.CheckpointHook', interval=1)],
        )
    )
    make_resumable(config)
    ours = [dict(type=f'mmevm.{name}') for name in ('PositionHook', 'ReseedHook', 'StopHook')]
    expected = dict(
        train_cfg=dict(type='mmevm.ResumableEpochLoop', max_epochs=2),
        default_hooks=dict(
            checkpoint=dict(type='mmevm.DurableCheckpointHook', interval=3),
            timer=dict(type='IterTimerHook'),
            logger=None,
        ),
        custom_hooks=[dict(type='EMAHook'), dict(type='mmevm.DurableCheckpointHook', interval=1), *ours],
    )
    assert config.to_dict() == expected
    make_resumable(config)
    assert config.to_dict() == expected


@pytest.mark.parametrize(
    ('loop', 'name'),
    [
        (dict(by_epoch=True), 'mmevm.ResumableEpochLoop'),
        (dict(by_epoch=False), 'mmevm.ResumableIterLoop'),
        (dict(type=EpochBasedTrainLoop), 'mmevm.ResumableEpochLoop'),
        (dict(type='mylib.EpochBasedTrainLoop'),) * 2,
    ],
    ids=['epochs', 'iterations', 'class', 'own'],
)
def test_make_resumable_replaces_mmengines_loops(loop: dict, name: Any) -> None:
    config = Config(dict(train_cfg=dict(loop)))
    make_resumable(config)
    assert config.train_cfg.to_dict() == (name if isinstance(name, dict) else dict(type=name))


def test_a_config_without_training_is_refused() -> None:
    with pytest.raises(UsageError, match='no train_cfg'):
        make_resumable(Config(dict(train_cfg=None)))


@pytest.mark.parametrize('scope', ['mmdet', 'mmseg', 'mmpretrain', 'mmengine'])
def test_hooks_and_loops_are_found_from_any_scope(scope: str) -> None:
    with HOOKS.switch_scope_and_registry(scope):
        assert isinstance(HOOKS.build(dict(type='mmevm.DurableCheckpointHook')), DurableCheckpointHook)
    assert LOOPS.get('mmevm.ResumableIterLoop') is ResumableIterLoop
