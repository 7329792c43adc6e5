"""Training runs that continue after an interruption as if there had been none.

MMEngine restores weights, optimizer, schedules and iteration. It does not restore random draws (the order of the images
if the config has no seed, dropout, augmentation), nor the position in an epoch if a checkpoint was saved in the middle
of one (``default_hooks.checkpoint.by_epoch=False``, or a signal).
"""

import random
from typing import Any, cast

import numpy as np
import torch
from mmengine.dist import get_rank
from mmengine.hooks import CheckpointHook, Hook, LoggerHook
from mmengine.logging import print_log
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop
from torch.utils.data import DataLoader

from mmevm.engine.hooks.checkpoint import DurableCheckpointHook, DurableLoggerHook
from mmevm.engine.hooks.position import PositionHook
from mmevm.engine.hooks.stop import StopHook, shield
from mmevm.engine.runner.latest import is_type
from mmevm.errors import UsageError
from mmevm.registry import HOOKS, LOOPS

_DATA, _MODEL = range(2)


def _reseed(runner: Any, iteration: int, purpose: int) -> None:
    """Seed the random number generators by the run's seed, the iteration and the rank."""
    sequence = np.random.SeedSequence([runner.seed, iteration, get_rank(), purpose])
    seed = int(sequence.generate_state(1)[0])
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


@HOOKS.register_module()
class ReseedHook(Hook):
    """Gives every iteration its own seed, so that dropout and MixUp are the same after an interruption."""

    priority = 'VERY_HIGH'

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        """Seed the forward pass."""
        _reseed(runner, runner.iter, _MODEL)


@LOOPS.register_module()
class ResumableEpochLoop(EpochBasedTrainLoop):
    """MMEngine's loop over epochs, but a resumed epoch starts at the batch after its checkpoint."""

    _iter: int

    def run_epoch(self) -> None:
        """Train on the batches of an epoch, except those that were trained on before the checkpoint."""
        self.runner.call_hook('before_train_epoch')
        self.runner.model.train()
        first = self._epoch * len(self.dataloader)
        done = self._iter - first
        if not 0 <= done <= len(self.dataloader):
            # Resumed without a PositionHook, after epochs of another length.
            self._iter, done = first, 0
        if done:
            print_log(f'Skipping the {done} batches of this epoch that were trained on already', logger='current')
        if done < len(self.dataloader):
            self._train_from(first, done)
        self.runner.call_hook('after_train_epoch')
        self._epoch += 1

    def _train_from(self, first: int, done: int) -> None:
        batches = iter(self.dataloader)
        for index in range(len(self.dataloader)):
            # For images that are loaded in this process; MMEngine seeds the data loading processes.
            _reseed(self.runner, first + index, _DATA)
            batch = next(batches)
            if index >= done:
                self.run_iter(index, batch)


@LOOPS.register_module()
class ResumableIterLoop(IterBasedTrainLoop):
    """MMEngine's loop over iterations, but its data loading processes survive a signal until the iteration ends."""

    def __init__(self, runner: Any, dataloader: DataLoader | dict, **kwargs: Any) -> None:
        # MMEngine 0.10.7 would start its processes as soon as it has built it.
        if isinstance(dataloader, dict):
            by_rank = runner.cfg.get('randomness', {}).get('diff_rank_seed', False)
            dataloader = runner.build_dataloader(dataloader, seed=runner.seed, diff_rank_seed=by_rank)
        super().__init__(runner, shield(cast(DataLoader, dataloader)), **kwargs)


_LOOPS: dict[type, type] = {EpochBasedTrainLoop: ResumableEpochLoop, IterBasedTrainLoop: ResumableIterLoop}
_DURABLE: dict[type, type] = {CheckpointHook: DurableCheckpointHook, LoggerHook: DurableLoggerHook}
_ADDED: tuple[type, ...] = (PositionHook, ReseedHook, StopHook)


def _replace(settings: Any, replacements: dict[type, type]) -> None:
    """Replace one of MMEngine's classes in ``type``, or an earlier name of its replacement."""
    for theirs, ours in replacements.items():
        if is_type(settings, theirs, ours):
            settings['type'] = f'mmevm.{ours.__name__}'


def make_resumable(cfg: Any) -> None:
    """Replace MMEngine's hooks and loops in a config by ours; those of others stay.

    Args:
        cfg (Config): Changed in place. It may have been through this before.

    Raises:
        UsageError: It has no ``train_cfg``.
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
    custom = [hook for hook in cfg.get('custom_hooks') or [] if not is_type(hook, *_ADDED)]
    for hook in (*hooks.values(), *custom):
        _replace(hook, _DURABLE)
    cfg.default_hooks = hooks
    cfg.custom_hooks = [*custom, *(dict(type=f'mmevm.{ours.__name__}') for ours in _ADDED)]


def adopt_seed(cfg: Any, seed: int | None) -> None:
    """Use the seed of the run that ``cfg`` resumes if ``cfg`` has none.

    MMEngine does so, too, but only after it has built the data loaders, which shuffle by the seed.
    """
    randomness = cfg.get('randomness') or {}
    if randomness.get('seed') is None and seed is not None:
        print_log(f"Using the checkpoint's seed, {seed}, for the order of the images", logger='current')
        cfg.randomness = dict(randomness, seed=seed)
