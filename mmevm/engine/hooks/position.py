"""The position of a training run: kept in its checkpoints, and converted when epochs have another length.

MMEngine counts iterations. With another batch size, number of processes or dataset size, the same number means another
position in the schedule. The epoch and the fraction of it that is done keep their meaning.
"""

import logging
from collections.abc import Sized
from typing import Any, cast

from mmengine.dist import get_world_size
from mmengine.hooks import Hook
from mmengine.optim import _ParamScheduler
from mmengine.runner import IterBasedTrainLoop
from torch.utils.data import DataLoader

from mmevm._patches import is_training
from mmevm.registry import HOOKS

_NAMES = {
    'batch_size': 'batch size',
    'processes': 'processes',
    'samples': 'dataset size',
    'epoch_length': 'iterations per epoch',
}


def describe(loader: DataLoader) -> dict[str, int]:
    """Return what determines the amount of data in an iteration and an epoch."""
    batch_size = loader.batch_size or getattr(loader.batch_sampler, 'batch_size', None)
    facts = {'batch_size': batch_size, 'processes': get_world_size()}
    try:
        facts |= {'samples': len(cast(Sized, loader.dataset)), 'epoch_length': len(loader)}
    except TypeError:  # datasets that are streams have no length
        pass
    return {name: value for name, value in facts.items() if isinstance(value, int)}


def position(runner: Any) -> tuple[int, int]:
    """Return the completed epochs and iterations of a training run with a :class:`PositionHook`."""
    return next(hook for hook in runner.hooks if isinstance(hook, PositionHook)).done


def _epoch_length(meta: dict, info: dict, current: int) -> int | None:
    """Return the iterations per epoch of the run that wrote a checkpoint, None if they are unknown."""
    stored = (meta.get('train_data') or {}).get('epoch_length')
    if stored:
        return stored
    if info.get('max_epochs') and info.get('max_iters'):
        return info['max_iters'] // info['max_epochs']
    epoch, iteration = meta['epoch'], meta['iter']
    if iteration == epoch * current or not epoch:
        return current
    return None if iteration % epoch else iteration // epoch


def convert(epoch: int, iteration: int, old: int, new: int) -> int:
    """Express an iteration number in epochs of another length.

    Args:
        epoch (int): Completed epochs.
        iteration (int): Completed iterations, in epochs of ``old`` iterations.
        old (int): Previous length of an epoch.
        new (int): New length of an epoch.

    Returns:
        int: Completed iterations in epochs of ``new``, rounded down so that no part of an epoch is skipped.
    """
    done = iteration - epoch * old
    # Other tools' runs that changed their batch size earlier: only the epoch can be trusted.
    done = done if 0 <= done <= old else 0
    return epoch * new + done * new // old


def _schedulers(built: Any, states: Any, config: Any) -> list[tuple[Any, dict, dict]]:
    """Pair each scheduler with its state in the checkpoint and its config."""
    if isinstance(built, dict):
        return [
            triple
            for name, part in built.items()
            if name in states
            for triple in _schedulers(part, states[name], config.get(name, config))
        ]
    config = config if isinstance(config, list | tuple) else [config]
    return list(zip(built or [], states or [], config, strict=False))


@HOOKS.register_module()
class PositionHook(Hook):
    """Writes the position and the amount of data into checkpoints, and converts both when one is resumed from.

    Attributes:
        done (tuple[int, int]): Completed epochs and iterations.
    """

    # Before MMEngine's own hooks, which overwrite the data of the checkpoint's run.
    priority = 'HIGHEST'

    def __init__(self) -> None:
        self.done = (0, 0)
        self._notes: list[str] = []

    def after_load_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        """Convert position and schedules to this run's epochs, unless the checkpoint contains weights only."""
        meta = checkpoint.get('meta') or {}
        if not is_training(runner) or 'epoch' not in meta or 'iter' not in meta:
            return
        now, before = describe(runner.train_dataloader), dict(meta.get('train_data') or {})
        if not isinstance(runner.train_loop, IterBasedTrainLoop) and 'epoch_length' in now:
            info = (checkpoint.get('message_hub') or {}).get('runtime_info') or {}
            before['epoch_length'] = _epoch_length(meta, info, now['epoch_length'])
            self._convert(runner, checkpoint, before['epoch_length'], now['epoch_length'])
        self._notes = [self._change(runner, meta, before, now)]
        if 'optimizer' not in checkpoint:
            self._notes.append('The checkpoint has no optimizer state; the optimizer starts afresh')

    def _convert(self, runner: Any, checkpoint: dict, old: int | None, new: int) -> None:
        meta = checkpoint['meta']
        epoch, iteration = meta['epoch'], meta['iter']
        meta['iter'] = convert(epoch, iteration, old or new, new)
        if not old or old == new:
            return
        states, config = checkpoint.get('param_schedulers'), runner.cfg.get('param_scheduler')
        for scheduler, state, settings in _schedulers(runner.param_schedulers, states, config):
            converted = isinstance(settings, dict) and settings.get('convert_to_iter_based')
            if converted and isinstance(scheduler, _ParamScheduler):
                self._convert_schedule(scheduler, state, convert(epoch, state['_global_step'], old, new))

    @staticmethod
    def _convert_schedule(scheduler: _ParamScheduler, state: dict, step: int) -> None:
        # The new scheduler has its milestones in iterations of the new length; the rates reached so far are kept.
        last_step = max(-1, min(step, scheduler.end - 1) - scheduler.begin)
        kept = {name: state[name] for name in ('base_values', '_last_value') if name in state}
        state.update({**scheduler.state_dict(), **kept, '_global_step': step, 'last_step': last_step})

    @staticmethod
    def _change(runner: Any, meta: dict, before: dict, now: dict) -> str:
        changes = [
            f'{words} {before[name]} → {now[name]}'
            for name, words in _NAMES.items()
            if before.get(name) and name in now and before[name] != now[name]
        ]
        if not changes:
            return ''
        text = f'Resuming with other data per iteration ({", ".join(changes)}): '
        if isinstance(runner.train_loop, IterBasedTrainLoop):
            return text + f'continuing at iteration {meta["iter"]}; only iterations count, whatever their batch size.'
        done = meta['iter'] - meta['epoch'] * now['epoch_length']
        part = f' and {done} of {now["epoch_length"]} iterations of the next' if done else ''
        return text + (
            f'continuing after epoch {meta["epoch"]}{part}, which counts as iteration {meta["iter"]}. Learning rate '
            'schedules in epochs keep their position; the learning rate itself is not scaled.'
        )

    def before_train(self, runner: Any) -> None:
        """Log what has changed, and whether there is nothing left to train."""
        loop = runner.train_loop
        self.done = (loop.epoch, loop.iter)
        # A checkpoint that only provided weights leaves the run at iteration 0.
        for note in filter(None, self._notes if loop.iter else []):
            runner.logger.warning(note)
        by_iterations = isinstance(loop, IterBasedTrainLoop)
        done, total = (loop.iter, loop.max_iters) if by_iterations else (loop.epoch, loop.max_epochs)
        if done >= total:
            unit, key = ('iterations', 'max_iters') if by_iterations else ('epochs', 'max_epochs')
            level = logging.WARNING if done > total else logging.INFO
            runner.logger.log(
                level,
                f'Nothing is left to train: {done} {unit} are done, and train_cfg.{key} is '
                f'{total}. Raise it to train longer.',
            )

    def after_train_iter(self, runner: Any, *args: Any, **kwargs: Any) -> None:
        """Count the iteration, which the loop does after all hooks."""
        self.done = (runner.epoch, runner.iter + 1)

    def after_train_epoch(self, runner: Any) -> None:
        """Count the epoch, which the loop does after all hooks."""
        if not isinstance(runner.train_loop, IterBasedTrainLoop):
            self.done = (runner.epoch + 1, runner.iter)

    def before_save_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        """Write the position; MMEngine's FlexibleRunner counts one epoch too many in the best checkpoint."""
        epoch, iteration = self.done
        checkpoint['meta'].update(epoch=epoch, iter=iteration, train_data=describe(runner.train_dataloader))
