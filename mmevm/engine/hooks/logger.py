"""Logs that cannot be written do not end a training run."""

import logging
from collections.abc import Callable
from typing import Any

from mmengine.hooks import LoggerHook

from mmevm.registry import HOOKS


@HOOKS.register_module()
class DurableLoggerHook(LoggerHook):
    """MMEngine's hook, which goes on without text logs and scalars while there is no space for them.

    Args:
        *args (Any): Of ``LoggerHook``.
        **kwargs (Any): Of ``LoggerHook``.
    """

    _is_told = False

    def before_run(self, runner: Any) -> None:
        """Let the log file's handler warn once, where it would print a traceback for each line."""
        super().before_run(runner)
        for handler in runner.logger.handlers:
            if isinstance(handler, logging.FileHandler):
                handler.handleError = lambda record: self._warn(runner, 'The log file cannot be written')

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
        if not self._is_told:
            self._is_told = True
            runner.logger.warning(f'{message}; training continues, and what is logged meanwhile is lost')
