"""Checkpoints and logs that survive a full disk, a killed process and a read-only folder."""

import logging
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from mmengine.dist import is_main_process
from mmengine.hooks import CheckpointHook, EMAHook, LoggerHook
from mmengine.optim import OptimWrapperDict

from mmevm._patches import on_write_error
from mmevm.engine.hooks.position import position
from mmevm.engine.runner.distributed import shared_failure
from mmevm.engine.runner.storage import remove_drafts, write_file
from mmevm.errors import UsageError, free_space, size
from mmevm.registry import HOOKS

_INTERRUPTED = re.compile(r'iter_\d+\.pth')


def expected_size(runner: Any) -> int:
    """Return a lower bound of a checkpoint's bytes: weights, their average, and the optimizer's moments."""
    tensors = [*runner.model.parameters(), *runner.model.buffers()]
    total = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    if any(isinstance(hook, EMAHook) for hook in runner.hooks):
        total *= 2
    wrapper = runner.optim_wrapper
    for part in wrapper.values() if isinstance(wrapper, OptimWrapperDict) else [wrapper]:
        for group in part.param_groups:
            moments = 2 if 'betas' in group else bool(group.get('momentum'))
            total += moments * sum(weight.numel() * weight.element_size() for weight in group['params'])
    return total


class _KeepUntilSaved:
    """A file backend that records deletions instead of executing them."""

    def __init__(self, backend: Any) -> None:
        self._backend = backend
        self.outdated: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def remove(self, path: str) -> None:
        """Record a file."""
        self.outdated.append(path)

    rmtree = remove


@HOOKS.register_module()
class DurableCheckpointHook(CheckpointHook):
    """MMEngine's hook, but a checkpoint is deleted only after its successor is complete.

    If saving fails in one process of a distributed run, all end with the same message.

    Attributes:
        saved (tuple[int, int] | None): Epochs and iterations in the newest checkpoint of this process.
    """

    saved: tuple[int, int] | None = None
    file_backend: Any
    last_ckpt: str | None

    def before_train(self, runner: Any) -> None:
        """Find the folder and check that it has space for a checkpoint."""
        super().before_train(runner)
        self._adopt_best(runner)
        if '://' in str(self.out_dir):
            return
        with shared_failure():
            if is_main_process():
                remove_drafts(self.out_dir)
                self._require_space(runner)

    def _require_space(self, runner: Any) -> None:
        needed, free = expected_size(runner), free_space(self.out_dir)
        if (self.interval > 0 or self.save_last) and runner.iter < runner.max_iters and free < needed:
            raise UsageError(
                f'Not enough disk space for a checkpoint in {os.path.abspath(self.out_dir)}: it takes at '
                f'least {size(needed)} and {size(free)} are free. Free {size(needed - free)}, or choose '
                'another folder with --work-dir.'
            )

    def _adopt_best(self, runner: Any) -> None:
        """Take the best checkpoint from this run's folder, whatever folder the resumed run had."""
        for key in [key for key in runner.message_hub.runtime_info if key.startswith('best_ckpt')]:
            name = re.split(r'[/\\]', str(runner.message_hub.get_info(key)))[-1]
            path = self.file_backend.join_path(self.out_dir, name)
            path = path if self.file_backend.isfile(path) else None
            if getattr(self, 'best_ckpt_path', None) and key == 'best_ckpt':
                self.best_ckpt_path = path
            elif (indicator := key.removeprefix('best_ckpt_')) in getattr(self, 'best_ckpt_path_dict', {}):
                self.best_ckpt_path_dict[indicator] = path
            runner.message_hub.update_info(key, path)

    @contextmanager
    def _replacing(self, runner: Any) -> Iterator[None]:
        """Delete outdated checkpoints only after the new one is saved."""
        backend, previous = self.file_backend, self.last_ckpt
        if isinstance(backend, _KeepUntilSaved):
            yield
            return
        self.file_backend = keeper = _KeepUntilSaved(backend)
        try:
            with shared_failure():
                yield
        except UsageError as error:
            previous = previous or (runner.cfg.get('resume') and runner.cfg.get('load_from'))
            state = 'No checkpoint has been saved yet.'
            if previous:
                state = (
                    f'The last complete checkpoint is {previous}; once this is solved, continue from it with --resume.'
                )
            raise UsageError(f'{error}\n{state}') from None
        finally:
            self.file_backend = backend
        if is_main_process():
            best = [getattr(self, 'best_ckpt_path', None), *getattr(self, 'best_ckpt_path_dict', {}).values()]
            for path in keeper.outdated:
                if path in (self.last_ckpt, *best):
                    continue
                if backend.isfile(path):
                    backend.remove(path)
                elif backend.isdir(path):
                    backend.rmtree(path)

    def _save(self, runner: Any, name: str, meta: dict, temporary: bool = False) -> None:
        """Save a checkpoint to continue from, and record it as the last one."""
        previous = runner.message_hub.get_info('interrupt_ckpt')
        if temporary or previous:
            runner.message_hub.update_info('interrupt_ckpt', name if temporary else '')
        saved = meta['epoch'], meta['iter']
        self.last_ckpt = self.file_backend.join_path(self.out_dir, name)
        runner.message_hub.update_info('last_ckpt', self.last_ckpt)
        runner.save_checkpoint(
            self.out_dir,
            name,
            self.file_client_args,
            save_optimizer=self.save_optimizer or temporary,
            save_param_scheduler=self.save_param_scheduler or temporary,
            meta=meta,
            by_epoch=self.by_epoch,
            backend_args=self.backend_args,
            **self.args,
        )
        if is_main_process():
            write_file(os.path.join(runner.work_dir, 'last_checkpoint'), self.last_ckpt.encode())
        self.saved = saved
        # The name may come from a checkpoint, which could name any file.
        if previous != name and isinstance(previous, str) and _INTERRUPTED.fullmatch(previous):
            self.file_backend.remove(self.file_backend.join_path(self.out_dir, previous))

    def _save_checkpoint_with_step(self, runner: Any, step: int, meta: dict) -> None:
        # As in MMEngine, which deletes the outdated checkpoint first and overwrites `last_checkpoint` in place.
        with self._replacing(runner):
            if self.max_keep_ckpts > 0 and step not in list(self.keep_ckpt_ids)[-1:]:
                if len(self.keep_ckpt_ids) == self.max_keep_ckpts:
                    name = self.filename_tmpl.format(self.keep_ckpt_ids.popleft())
                    self.file_backend.remove(self.file_backend.join_path(self.out_dir, name))
                self.keep_ckpt_ids.append(step)
                runner.message_hub.update_info('keep_ckpt_ids', list(self.keep_ckpt_ids))
            self._save(runner, self.filename_tmpl.format(step), meta)

    def _save_best_checkpoint(self, runner: Any, metrics: dict) -> None:
        with self._replacing(runner):
            super()._save_best_checkpoint(runner, metrics)

    def save_now(self, runner: Any) -> None:
        """Save the current state as ``iter_<N>.pth``, which the next regular checkpoint replaces."""
        epoch, iteration = position(runner)
        if self.saved != (epoch, iteration):
            with self._replacing(runner):
                self._save(runner, f'iter_{iteration}.pth', dict(epoch=epoch, iter=iteration), temporary=True)


def save_now(runner: Any) -> str | None:
    """Save the current state of a training run, between two iterations, unless it has just been saved.

    Returns:
        str | None: The newest checkpoint; None if the run has no checkpoint hook.
    """
    hook = next((hook for hook in runner.hooks if isinstance(hook, CheckpointHook)), None)
    if isinstance(hook, DurableCheckpointHook):
        hook.save_now(runner)
        return hook.last_ckpt
    if hook is None:
        return None
    # A user's own class.
    epoch, iteration = position(runner)
    name = f'iter_{iteration}.pth'
    runner.save_checkpoint(
        hook.out_dir, name, meta=dict(epoch=epoch, iter=iteration), by_epoch=False, backend_args=hook.backend_args
    )
    return f'{hook.out_dir}/{name}'


@HOOKS.register_module()
class DurableLoggerHook(LoggerHook):
    """MMEngine's hook, but training continues without logs while there is no space for them."""

    _has_warned = False

    def before_run(self, runner: Any) -> None:
        """Let the log file's handler warn once instead of printing a traceback per line."""
        super().before_run(runner)
        for handler in runner.logger.handlers:
            if isinstance(handler, logging.FileHandler):
                on_write_error(handler, lambda: self._warn(runner, 'The log file cannot be written'))

    def after_train_iter(self, runner: Any, *args: Any, **kwargs: Any) -> None:
        """Write the losses."""
        self._try(runner, super().after_train_iter, *args, **kwargs)

    def after_val_epoch(self, runner: Any, *args: Any, **kwargs: Any) -> None:
        """Write the metrics."""
        self._try(runner, super().after_val_epoch, *args, **kwargs)

    def after_run(self, runner: Any) -> None:
        """Close the visualizer and copy the logs."""
        self._try(runner, super().after_run)

    def _try(self, runner: Any, write: Callable, *args: Any, **kwargs: Any) -> None:
        try:
            write(runner, *args, **kwargs)
        except OSError as error:
            self._warn(runner, f'Logs cannot be written to {runner.log_dir} ({error})')

    def _warn(self, runner: Any, message: str) -> None:
        if not self._has_warned:
            self._has_warned = True
            runner.logger.warning(f'{message}; training continues, and what is logged meanwhile is lost')
