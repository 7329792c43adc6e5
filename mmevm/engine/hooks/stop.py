"""Signals that end a process: a training run finishes its iteration and saves, everything else just ends.

The exit status is 128 plus the signal's number, as for programs that a signal kills: 143 for SIGTERM, 130 for SIGINT.
"""

import mmap
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

import torch
from mmengine.dist import all_reduce, is_main_process
from mmengine.hooks import EMAHook, Hook
from mmengine.optim import OptimWrapperDict
from torch.utils.data import DataLoader

from mmevm.engine.hooks.checkpoint import save_now
from mmevm.registry import HOOKS

# What terminals, clusters and Slurm's --signal send. SIGKILL cannot be handled.
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
# Slurm signals torchrun and its processes, and torchrun passes the signal on.
_RANKS = [os.environ[name] for name in ('RANK', 'SLURM_PROCID', 'OMPI_COMM_WORLD_RANK') if name in os.environ]
_SAME_REQUEST = 5.0 if _RANKS else 0.0


class Interrupted(SystemExit):
    """Ends the process with a signal's exit status."""

    def __init__(self, signum: int) -> None:
        super().__init__(128 + signum)
        self.signum = signum


class _Request:
    """The signal that this process has received, and whether it must save its state first."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget signals and handlers."""
        self.signum = 0
        self.since = 0.0
        self.is_training = False
        self.owner = os.getpid()  # the process that handles signals, as opposed to its data loading processes
        # The previous handlers.
        self.previous: dict[int, Any] = {}
        # Shared with the data loading processes, which survive signals to the process group until it is set.
        self.is_over = mmap.mmap(-1, 1)
        self.is_over[0] = 1

    def install(self) -> None:
        """Handle signals in this process from now on."""
        self.reset()
        # A process that waits for the first one, which may have refused to start, cannot handle signals.
        handler: Any = signal.SIG_DFL if _RANKS and _RANKS[0] != '0' else self.receive
        for signum in _SIGNALS:
            # Some are ignored on purpose, as by nohup.
            if signal.getsignal(signum) not in (signal.SIG_IGN, None):
                self.previous[signum] = signal.signal(signum, handler)
        self.is_over[0] = 0

    def restore(self) -> None:
        """Restore the previous handlers."""
        for signum, previous in self.previous.items():
            signal.signal(signum, previous or signal.SIG_DFL)
        self.previous = {}
        self.is_over[0] = 1

    def begin(self) -> None:
        """From now on, finish the iteration before a signal ends the process."""
        if not self.is_training:
            self.is_training = True
            for signum in self.previous.keys() & set(_SIGNALS):
                signal.signal(signum, self.receive)

    def receive(self, signum: int, frame: FrameType | None) -> None:
        """Handle a signal."""
        if os.getpid() != self.owner:
            # A data loading process: the parent handles a terminal's SIGINT.
            if signum != signal.SIGINT:
                os._exit(128 + signum)
            return
        now = time.monotonic()
        if self.signum and now - self.since < _SAME_REQUEST:
            return
        if self.signum or not self.is_training:
            # torch's handler would raise its own error when the data loading processes end first.
            self.previous[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        if self.signum:
            for child in multiprocessing.active_children():
                child.kill()
                child.join(1)
            os._exit(128 + signum)
        self.signum, self.since = signum, now
        if not self.is_training:
            raise Interrupted(signum)
        if is_main_process():
            os.write(
                2,
                f'\n{signal.Signals(signum).name}: ending after this iteration, with a checkpoint. '
                'A second signal ends at once.\n'.encode(),
            )


_request = _Request()


def interruptible(run: Callable[[], int]) -> int:
    """Run a tool that ends cleanly on a signal, and return its exit status or that of the signal."""
    in_main_thread = threading.current_thread() is threading.main_thread()
    if in_main_thread:
        _request.install()
    try:
        return run()
    except Interrupted as interrupted:
        return 128 + interrupted.signum
    finally:
        if in_main_thread:
            _request.restore()


class _Shield:
    """A data loader's ``worker_init_fn`` that lets its process survive signals to the process group.

    Terminals, torchrun and Slurm signal the data loading processes, too. The training process needs them to finish its
    iteration, would otherwise fail when they exit, and ends them itself.

    Args:
        init (Callable | None): The loader's own ``worker_init_fn``.
    """

    def __init__(self, init: Callable[[int], None] | None) -> None:
        self.init, self.is_over, self.parent = init, _request.is_over, os.getpid()

    def __call__(self, worker: int) -> None:
        """Prepare the process."""
        for signum in _SIGNALS:
            signal.signal(signum, self._receive if signum == signal.SIGTERM else signal.SIG_IGN)
        if self.init is not None:
            self.init(worker)

    def _receive(self, signum: int, frame: FrameType | None) -> None:
        if self.is_over[0] or os.getppid() != self.parent:
            os._exit(0)


def shield(loader: DataLoader) -> DataLoader:
    """Let a data loader's processes survive signals while a training run handles them."""
    # Only forked processes share `is_over` with this one.
    is_forked = multiprocessing.get_start_method() == 'fork' and not loader.multiprocessing_context
    if is_forked and not _request.is_over[0] and not isinstance(loader.worker_init_fn, _Shield):
        loader.worker_init_fn = _Shield(loader.worker_init_fn)
    return loader


@HOOKS.register_module()
class StopHook(Hook):
    """Ends a training run after the iteration in which a signal came, with a checkpoint, in all processes at once."""

    # After the hooks that update, log and save.
    priority = 'LOWEST'

    def __init__(self) -> None:
        self._common_batches = self._batches = 0
        self._is_averaged = False

    def before_train(self, runner: Any) -> None:
        """Keep the data loading processes alive until they are no longer needed."""
        shield(runner.train_dataloader)
        if runner.val_loop is not None:
            shield(runner.val_dataloader)

    def before_train_iter(self, runner: Any, *args: Any, **kwargs: Any) -> None:
        """Finish iterations from here on."""
        _request.begin()

    def after_train(self, runner: Any) -> None:
        """Let signals end the process at once again."""
        _request.is_training = False

    def after_train_iter(self, runner: Any, *args: Any, **kwargs: Any) -> None:
        """Stop here, unless gradients are being accumulated, which checkpoints do not contain."""
        wrapper = runner.optim_wrapper
        parts = wrapper.values() if isinstance(wrapper, OptimWrapperDict) else [wrapper]
        if all(part.should_update() for part in parts if hasattr(part, 'should_update')):
            self.stop_if_asked(runner)

    def before_val(self, runner: Any) -> None:
        """Count the batches that all processes have; some may have one more."""
        common = torch.tensor(len(runner.val_dataloader))
        all_reduce(common, 'min')
        self._common_batches = int(common)

    def before_val_epoch(self, runner: Any) -> None:
        """Note that the model may have averaged weights from here on."""
        self._is_averaged, self._batches = True, 0

    def after_val_iter(self, runner: Any, batch_idx: int, *args: Any, **kwargs: Any) -> None:
        """Stop here, if all processes reach this point."""
        # MMPretrain's EMAHook may evaluate a second time, with the trained weights.
        self._is_averaged &= batch_idx >= self._batches
        self._batches = batch_idx + 1
        if batch_idx < self._common_batches:
            self.stop_if_asked(runner)

    def after_val_epoch(self, runner: Any, metrics: dict | None = None) -> None:
        """Stop before the next epoch."""
        self._is_averaged = False
        self.stop_if_asked(runner)

    def stop_if_asked(self, runner: Any) -> None:
        """Save and end all processes if one of them has received a signal.

        Args:
            runner (Runner): At a point that all processes reach equally often.

        Raises:
            Interrupted: If so.
        """
        asked = torch.tensor(_request.signum)
        all_reduce(asked, 'max')
        signum = int(asked)
        if not signum:
            return
        for hook in runner.hooks if self._is_averaged else ():
            if isinstance(hook, EMAHook) and getattr(hook, 'evaluate_on_ema', True):
                EMAHook.after_val_epoch(hook, runner)  # not that of a subclass, which may evaluate once more
        path = save_now(runner)
        outcome = f'with {path}, where --resume continues'
        if not path:
            outcome = 'without a checkpoint: the config has no checkpoint hook'
        runner.logger.info(f'{signal.Signals(signum).name}: ended {outcome}')
        runner.visualizer.close()
        _request.is_training = False
        raise Interrupted(signum)
