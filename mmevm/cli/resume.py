"""Trainings that go on after an interruption as if there had been none.

MMEngine restores weights, optimizer, schedules and iteration. Missing from it are the draws of chance: the order of the
pictures where the config has no seed, dropout and augmentation; and the place in an epoch, if a checkpoint was saved in
the middle of one (``default_hooks.checkpoint.by_epoch=False``).
"""

import logging
import random
from typing import Any

import numpy as np
import torch
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.registry import HOOKS, LOOPS
from mmengine.runner import EpochBasedTrainLoop, find_latest_checkpoint

from mmevm.checkpoint import load_file
from mmevm.registry import type_name

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
        if done:
            print_log(f'Leaving out the {done} batches of this epoch that were trained on already', logger='current')
        batches = iter(self.dataloader)
        for index in range(len(self.dataloader)):
            # For pictures that are loaded in this process; MMEngine seeds those that load for it.
            _reseed(self.runner, first + index, _DATA)
            batch = next(batches)
            if index >= done:
                self.run_iter(index, batch)
        self.runner.call_hook('after_train_epoch')
        self._epoch += 1


def make_resumable(cfg: Any) -> None:
    """Put :class:`ReseedHook` and :class:`ResumableEpochLoop` into a config whose loop is MMEngine's own."""
    by_epoch = cfg.train_cfg.get('by_epoch', type_name(cfg.train_cfg) == 'EpochBasedTrainLoop')
    if by_epoch:
        cfg.train_cfg.pop('by_epoch', None)
        cfg.train_cfg.type = 'mmengine.ResumableEpochLoop'
    cfg.custom_hooks = [*(cfg.get('custom_hooks') or []), dict(type='mmengine.ReseedHook')]


def adopt_seed(cfg: Any) -> None:
    """Take the seed of the checkpoint that ``cfg`` resumes from, where ``cfg`` has none.

    MMEngine does so itself, but only after the data loaders, which shuffle by the seed, have been built.
    """
    randomness = cfg.get('randomness') or {}
    path = cfg.get('load_from') or find_latest_checkpoint(cfg.work_dir)
    if randomness.get('seed') is not None or path is None or '://' in path:
        return
    seed = load_file(path).get('meta', {}).get('seed')
    if seed is not None:
        print_log(
            f"The pictures come in the order of the checkpoint's seed, {seed}", logger='current', level=logging.INFO
        )
        cfg.randomness = dict(randomness, seed=seed)
