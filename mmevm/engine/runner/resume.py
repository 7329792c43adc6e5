"""Training runs that continue after an interruption as if there had been none.

MMEngine restores weights, optimizer, schedules and iteration. Missing from it are the draws of chance: the order of the
images where the config has no seed, dropout and augmentation; and the place in an epoch, if a checkpoint was saved in
the middle of one (``default_hooks.checkpoint.by_epoch=False``, or a signal).
"""

import random
from typing import Any

import numpy as np
import torch
from mmengine.dist import get_rank
from mmengine.hooks import CheckpointHook, Hook, LoggerHook
from mmengine.logging import print_log
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop
from torch.utils.data import DataLoader

from mmevm.engine.hooks.checkpoint import DurableCheckpointHook
from mmevm.engine.hooks.logger import DurableLoggerHook
from mmevm.engine.hooks.position import PositionHook
from mmevm.engine.hooks.stop import StopHook, shield
from mmevm.engine.runner.latest import is_type
from mmevm.errors import UsageError
from mmevm.registry import HOOKS, LOOPS

_DATA, _MODEL = range(2)


def _reseed(runner: Any, iteration: int, purpose: int) -> None:
    """Make what chance draws next depend on nothing but the run's seed, the iteration and the process."""
    sequence = np.random.SeedSequence([runner.seed, iteration, get_rank(), purpose])
    seed = int(sequence.generate_state(1)[0])
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


@HOOKS.register_module()
class ReseedHook(Hook):
    """Gives every iteration its own seed, so that dropout and MixUp draw the same after an interruption."""

    priority = 'VERY_HIGH'

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        """Seed the forward pass."""
        _reseed(runner, runner.iter, _MODEL)


@LOOPS.register_module()
class ResumableEpochLoop(EpochBasedTrainLoop):
    """MMEngine's loop over epochs, which begins a resumed epoch at the batch where its checkpoint was saved."""

    def run_epoch(self) -> None:
        """Train on the batches of an epoch, without those that the checkpoint holds already."""
        self.runner.call_hook('before_train_epoch')
        self.runner.model.train()
        first = self._epoch * len(self.dataloader)
        done = self._iter - first
        if not 0 <= done <= len(self.dataloader):
            # Resumed without a PositionHook, after epochs of another length.
            self._iter, done = first, 0
        if done:
            print_log(f'Leaving out the {done} batches of this epoch that were trained on already', logger='current')
        if done < len(self.dataloader):
            self._train_rest(first, done)
        self.runner.call_hook('after_train_epoch')
        self._epoch += 1

    def _train_rest(self, first: int, done: int) -> None:
        batches = iter(self.dataloader)
        for index in range(len(self.dataloader)):
            # For images that are loaded in this process; MMEngine seeds those that load for it.
            _reseed(self.runner, first + index, _DATA)
            batch = next(batches)
            if index >= done:
                self.run_iter(index, batch)


@LOOPS.register_module()
class ResumableIterLoop(IterBasedTrainLoop):
    """MMEngine's loop over iterations, whose data outlives a signal until the iteration ends.

    Args:
        runner (Runner): The runner.
        dataloader (DataLoader | dict): The loader or its config.
        **kwargs (Any): Of ``IterBasedTrainLoop``.
    """

    def __init__(self, runner: Any, dataloader: DataLoader | dict, **kwargs: Any) -> None:
        # Built here, as MMEngine 0.10.7 starts its processes at once.
        if isinstance(dataloader, dict):
            by_rank = runner._randomness_cfg.get('diff_rank_seed', False)
            dataloader = runner.build_dataloader(dataloader, seed=runner.seed, diff_rank_seed=by_rank)
        super().__init__(runner, shield(dataloader), **kwargs)


_LOOPS = {EpochBasedTrainLoop: ResumableEpochLoop, IterBasedTrainLoop: ResumableIterLoop}
_DURABLE = {CheckpointHook: DurableCheckpointHook, LoggerHook: DurableLoggerHook}
_ADDED = (PositionHook, ReseedHook, StopHook)


def _replace(settings: Any, replacements: dict[type, type]) -> None:
    """Let ``type`` name our form of one of MMEngine's classes, or of those that mmevm once registered there."""
    kind = settings.get('type') if isinstance(settings, dict) else None
    for theirs, ours in replacements.items():
        if is_type(kind, theirs) or is_type(kind, ours):
            settings['type'] = f'mmevm.{ours.__name__}'


def make_resumable(cfg: Any) -> None:
    """Put our hooks and loops in the place of MMEngine's own into a config; those of others are left alone.

    Args:
        cfg (Config): Changed in place. It may be one that has been through this before.

    Raises:
        UsageError: It describes no training.
    """
    loop = cfg.get('train_cfg')
    if not loop:
        raise UsageError('The config has no train_cfg: there is nothing to train.')
    if 'type' not in loop and loop.get('by_epoch') is not None:
        loop.type = 'EpochBasedTrainLoop' if loop.pop('by_epoch') else 'IterBasedTrainLoop'
    _replace(loop, _LOOPS)
    hooks = dict(cfg.get('default_hooks') or {})
    hooks.setdefault('checkpoint', dict(type='CheckpointHook'))
    hooks.setdefault('logger', dict(type='LoggerHook'))
    added = [f'{scope}.{ours.__name__}' for ours in _ADDED for scope in ('mmevm', 'mmengine')]
    custom = [
        hook for hook in cfg.get('custom_hooks') or [] if not (isinstance(hook, dict) and hook.get('type') in added)
    ]
    for hook in (*hooks.values(), *custom):
        _replace(hook, _DURABLE)
    cfg.default_hooks = hooks
    cfg.custom_hooks = [*custom, *(dict(type=f'mmevm.{ours.__name__}') for ours in _ADDED)]


def adopt_seed(cfg: Any, seed: int | None) -> None:
    """Take the seed of the run that ``cfg`` resumes, where ``cfg`` has none.

    MMEngine does so itself, but only after the data loaders, which shuffle by the seed, have been built.
    """
    randomness = cfg.get('randomness') or {}
    if randomness.get('seed') is None and seed is not None:
        print_log(f"The images come in the order of the checkpoint's seed, {seed}", logger='current')
        cfg.randomness = dict(randomness, seed=seed)
