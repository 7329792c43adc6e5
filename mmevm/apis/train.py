"""Training, as ``tools/train.py`` runs it."""

import copy
import logging
import os
from collections.abc import Sequence
from typing import Any

from mmengine.logging import print_log

from mmevm.apis.arguments import parse_train_args
from mmevm.apis.own_data import save_config, use_data
from mmevm.engine.checks.channels import check_channels
from mmevm.engine.checks.classes import check_classes
from mmevm.engine.checks.paths import check_data
from mmevm.engine.config import build_runner, load_config, on_cpu, require_checkpoint
from mmevm.engine.hooks.batches import SingleImageCheck
from mmevm.engine.hooks.stop import interruptible
from mmevm.engine.hooks.weights import StrictWeights, skip_overwritten
from mmevm.engine.runner.distributed import is_first_process
from mmevm.engine.runner.host_memory import keep_freed_memory
from mmevm.engine.runner.latest import checkpoint_folders, find_latest, read_meta, saved_checkpoints, seed_of
from mmevm.engine.runner.resume import adopt_seed, make_resumable
from mmevm.engine.runner.storage import exclusive, register_durable_backend
from mmevm.errors import UsageError, exit_status
from mmevm.registry import type_name


def _set_amp(cfg: Any) -> None:
    if on_cpu():
        raise UsageError("--amp needs a GPU: MMEngine's AmpOptimWrapper does not run on the CPU. Leave out --amp.")
    wrapper = type_name(cfg.optim_wrapper, 'OptimWrapper')
    if wrapper not in ('OptimWrapper', 'AmpOptimWrapper'):
        raise UsageError(f'--amp needs optim_wrapper.type OptimWrapper or AmpOptimWrapper, got {wrapper}.')
    cfg.optim_wrapper.type = 'AmpOptimWrapper'
    cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')


def _drop_amp_on_cpu(cfg: Any) -> None:
    """Replace mixed precision where MMEngine would refuse it, so that any config can be tried on a CPU."""
    if type_name(cfg.optim_wrapper) == 'AmpOptimWrapper' and on_cpu():
        print_log(
            'The config asks for mixed precision, which MMEngine supports on accelerators only: training in float32',
            logger='current',
            level=logging.WARNING,
        )
        cfg.optim_wrapper.type = 'OptimWrapper'
        for key in ('loss_scale', 'dtype'):
            cfg.optim_wrapper.pop(key, None)


def _set_auto_scale_lr(cfg: Any) -> None:
    if not cfg.get('auto_scale_lr', {}).get('base_batch_size'):
        raise UsageError(
            '--auto-scale-lr needs auto_scale_lr=dict(base_batch_size=N) in the config, where N is the '
            'total batch size that its learning rate was tuned for.'
        )
    cfg.auto_scale_lr.enable = True


def _log(cfg: Any, message: str, level: int = logging.INFO) -> None:
    if is_first_process(cfg.launcher):
        print_log(message, logger='current', level=level)


def _set_resume(cfg: Any, source: str) -> None:
    if source == 'auto':
        found = find_latest(cfg)
        cfg.resume = found is not None
        if found is None:
            # load_from stays: it is where a run without checkpoints starts.
            place = '' if os.path.isabs(cfg.work_dir) else f' (below {os.getcwd()})'
            message = f'No checkpoint in {cfg.work_dir} yet{place}: training starts from the beginning'
            _log(cfg, message, logging.WARNING)
            return
        for fault in found.skipped:
            _log(cfg, f'Skipped: {fault}', logging.WARNING)
        _log(cfg, f'Resuming from {found.path}')
        cfg.load_from, seed = found.path, found.seed
    elif source.startswith('mmevm://'):
        raise UsageError(
            f'--resume needs a training checkpoint, and the zoo has weights alone. To start from them: '
            f'--cfg-options load_from={source}, without --resume'
        )
    else:
        require_checkpoint(source)
        cfg.resume, cfg.load_from = True, source
        seed = None if '://' in source else seed_of(read_meta(os.path.expanduser(source)))
    adopt_seed(cfg, seed)


def _warn_of_overwriting(cfg: Any) -> None:
    """Only warn: MMEngine's users expect to start anew in the folder of an earlier run."""
    names = [path.name for path in saved_checkpoints(cfg)]
    if names:
        _log(
            cfg,
            f'{os.path.abspath(cfg.work_dir)} has checkpoints of an earlier run, such as {names[0]}. Training starts '
            'from the beginning and overwrites those of the same names. To continue that run: --resume; to keep it: '
            'another --work-dir',
            logging.WARNING,
        )


def train(
    config: str,
    *,
    amp: bool = False,
    auto_scale_lr: bool = False,
    resume: str | None = None,
    data: str | None = None,
    skip_broken: bool = False,
    **overrides: Any,
) -> None:
    """Train a model; data and checkpoints are checked before anything is built.

    Args:
        config (str): Config file.
        amp (bool): Mixed precision.
        auto_scale_lr (bool): Scale the learning rate to the actual total batch size.
        resume (str, optional): The checkpoint to continue from; ``'auto'`` means the newest one in the work directory.
        data (str, optional): A user's dataset instead of the config's; see :mod:`mmevm.apis.own_data`.
        skip_broken (bool): Leave out images that cannot be read.
        **overrides (Any): Other arguments of :func:`mmevm.engine.config.load_config`.
    """
    cfg = load_config(config, **overrides)
    if data:
        use_data(cfg, data, config, skip_broken)
    phases = ('train', 'val') if cfg.get('val_cfg') is not None else ('train',)
    check_data(cfg, phases, f'python tools/train.py {config}')
    check_classes(cfg, phases)
    check_channels(cfg, phases)
    adapted = copy.deepcopy(cfg) if data else None
    if amp:
        _set_amp(cfg)
    _drop_amp_on_cpu(cfg)
    if auto_scale_lr:
        _set_auto_scale_lr(cfg)
    make_resumable(cfg)
    # The config may ask for it as well.
    source = resume or (cfg.get('resume') and (cfg.get('load_from') or 'auto'))
    if source:
        _set_resume(cfg, source)
    if cfg.get('load_from'):
        require_checkpoint(cfg.load_from)
    with exclusive(checkpoint_folders(cfg) if is_first_process(cfg.launcher) else []):
        if not source:
            _warn_of_overwriting(cfg)
        if adapted is not None and is_first_process(cfg.launcher):
            saved = save_config(adapted)
            _log(cfg, f'The config for this dataset, which needs no --data: {saved}')
        _run(cfg, skip_broken)


def _run(cfg: Any, skip_broken: bool) -> None:
    if on_cpu():
        keep_freed_memory()
    register_durable_backend()
    runner = build_runner(cfg, skip_broken)
    resumes = bool(cfg.get('resume'))
    strict = StrictWeights(cfg.get('load_from'), complete=resumes, resume=resumes)
    runner.register_hook(strict)
    if cfg.get('load_from'):
        skip_overwritten(runner, strict, cfg.load_from)
    runner.register_hook(SingleImageCheck())
    runner.train()


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``tools/train.py`` and return its exit status."""
    args = parse_train_args(argv)
    return interruptible(lambda: exit_status(lambda: train(**args)))
