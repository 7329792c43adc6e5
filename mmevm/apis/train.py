"""``tools/train.py``."""

import argparse
import logging
import os
from collections.abc import Sequence
from typing import Any

from mmengine.logging import print_log

from mmevm.apis.arguments import parse_train_args
from mmevm.engine.checks.classes import check_classes
from mmevm.engine.checks.classifier_classes import check_classifier
from mmevm.engine.checks.paths import check_data
from mmevm.engine.config import build_runner, load_config, on_cpu, require_checkpoint
from mmevm.engine.hooks.batches import SingleImageCheck
from mmevm.engine.hooks.pretrained import skip_overwritten
from mmevm.engine.hooks.stop import interruptible
from mmevm.engine.hooks.weights import StrictWeights
from mmevm.engine.runner.distributed import is_first_process
from mmevm.engine.runner.latest import checkpoint_folders, find_latest, read_meta, saved_checkpoints, seed_of
from mmevm.engine.runner.lock import exclusive
from mmevm.engine.runner.resume import adopt_seed, make_resumable
from mmevm.engine.runner.storage import register_durable_backend
from mmevm.errors import UsageError, exit_status
from mmevm.registry import type_name


def _set_amp(cfg: Any) -> None:
    if on_cpu():
        raise UsageError("--amp needs a GPU: MMEngine's AmpOptimWrapper has no CPU form. Leave --amp out.")
    wrapper = type_name(cfg.optim_wrapper, 'OptimWrapper')
    if wrapper not in ('OptimWrapper', 'AmpOptimWrapper'):
        raise UsageError(f'--amp needs optim_wrapper.type OptimWrapper or AmpOptimWrapper, got {wrapper}.')
    cfg.optim_wrapper.type = 'AmpOptimWrapper'
    cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')


def _leave_amp_on_cpu(cfg: Any) -> None:
    """Replaces a recipe's mixed precision where MMEngine would refuse it, so that any config can be tried on a CPU."""
    if type_name(cfg.optim_wrapper) == 'AmpOptimWrapper' and on_cpu():
        print_log(
            'The config asks for mixed precision, which MMEngine has on accelerators alone: training in float32',
            logger='current',
            level=logging.WARNING,
        )
        cfg.optim_wrapper.type = 'OptimWrapper'
        for key in ('loss_scale', 'dtype'):
            cfg.optim_wrapper.pop(key, None)


def _set_auto_scale_lr(cfg: Any) -> None:
    if not cfg.get('auto_scale_lr', {}).get('base_batch_size'):
        raise UsageError(
            '--auto-scale-lr needs auto_scale_lr=dict(base_batch_size=N) in the config, N being the total '
            'batch that its learning rate was chosen for.'
        )
    cfg.auto_scale_lr.enable = True


def _tell(cfg: Any, message: str, level: int = logging.INFO) -> None:
    if is_first_process(cfg.launcher):
        print_log(message, logger='current', level=level)


def _set_resume(cfg: Any, source: str) -> None:
    if source == 'auto':
        found = find_latest(cfg)
        cfg.resume = found is not None
        if found is None:
            # Of a training run that has no checkpoint yet, the config's start stays.
            _tell(cfg, f'No checkpoint in {cfg.work_dir} yet: training begins at the start')
            return
        for fault in found.skipped:
            _tell(cfg, f'Skipped: {fault}', logging.WARNING)
        _tell(cfg, f'Resuming from {found.path}')
        cfg.load_from, seed = found.path, found.seed
    elif source.startswith('mmevm://'):
        raise UsageError(
            f'--resume takes the checkpoint of a training, and the zoo has weights alone. To start from '
            f'them: --cfg-options load_from={source}, without --resume'
        )
    else:
        require_checkpoint(source)
        cfg.resume, cfg.load_from = True, source
        seed = None if '://' in source else seed_of(read_meta(os.path.expanduser(source)))
    adopt_seed(cfg, seed)


def _say_what_is_overwritten(cfg: Any) -> None:
    """Warn, and no more: MMEngine's users expect to start anew in the folder that they had before."""
    names = [path.name for path in saved_checkpoints(cfg)]
    if names:
        _tell(
            cfg,
            f'{os.path.abspath(cfg.work_dir)} has checkpoints of an earlier run, such as {names[0]}. Training '
            'begins at the start and overwrites those of the same names. To continue that run: --resume; to keep '
            'it: another --work-dir',
            logging.WARNING,
        )


def train(args: argparse.Namespace) -> None:
    """Train as ``args`` say; data and checkpoints are looked for before anything is built."""
    cfg = load_config(args)
    phases = ('train', 'val') if cfg.get('val_cfg') is not None else ('train',)
    check_data(cfg, phases, f'python tools/train.py {args.config}')
    check_classifier(cfg, phases)
    check_classes(cfg, phases)
    if args.amp:
        _set_amp(cfg)
    _leave_amp_on_cpu(cfg)
    if args.auto_scale_lr:
        _set_auto_scale_lr(cfg)
    make_resumable(cfg)
    # A config may ask for it as well.
    source = args.resume or (cfg.get('resume') and (cfg.get('load_from') or 'auto'))
    if source:
        _set_resume(cfg, source)
    if cfg.get('load_from'):
        require_checkpoint(cfg.load_from)
    resume = bool(cfg.get('resume'))
    with exclusive(checkpoint_folders(cfg) if is_first_process(cfg.launcher) else []):
        if not source:
            _say_what_is_overwritten(cfg)
        register_durable_backend()
        runner = build_runner(cfg, args.skip_broken)
        strict = StrictWeights(cfg.get('load_from'), whole=resume, resume=resume)
        runner.register_hook(strict)
        if cfg.get('load_from'):
            skip_overwritten(runner, strict, cfg.load_from)
        runner.register_hook(SingleImageCheck())
        runner.train()


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of ``tools/train.py``; returns the exit status."""
    args = parse_train_args(argv)
    return interruptible(lambda: exit_status(lambda: train(args)))
