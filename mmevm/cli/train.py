"""``tools/train.py``."""

import argparse
import logging
from collections.abc import Sequence
from typing import Any

from mmengine.logging import print_log
from mmengine.runner import find_latest_checkpoint

from mmevm.cli.arguments import parse_train_args
from mmevm.cli.batches import SingleImageCheck
from mmevm.cli.classifier_classes import check_classes
from mmevm.cli.config import build_runner, load_config, on_cpu, require_checkpoint
from mmevm.cli.data import check_data
from mmevm.cli.errors import UsageError, exit_status
from mmevm.cli.resume import adopt_seed, make_resumable
from mmevm.cli.weights import StrictWeights
from mmevm.registry import type_name


def _set_amp(cfg: Any) -> None:
    if on_cpu():
        raise UsageError('--amp needs a GPU: MMEngine\'s AmpOptimWrapper has no CPU form. Leave --amp out.')
    wrapper = type_name(cfg.optim_wrapper, 'OptimWrapper')
    if wrapper not in ('OptimWrapper', 'AmpOptimWrapper'):
        raise UsageError(f'--amp needs optim_wrapper.type OptimWrapper or AmpOptimWrapper, got {wrapper}.')
    cfg.optim_wrapper.type = 'AmpOptimWrapper'
    cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')


def _leave_amp_on_cpu(cfg: Any) -> None:
    """Replaces a recipe's mixed precision where MMEngine would refuse it, so that any config can be tried on a CPU."""
    if type_name(cfg.optim_wrapper) == 'AmpOptimWrapper' and on_cpu():
        print_log('The config asks for mixed precision, which MMEngine has on accelerators alone: training in float32',
                  logger='current', level=logging.WARNING)
        cfg.optim_wrapper.type = 'OptimWrapper'
        for key in ('loss_scale', 'dtype'):
            cfg.optim_wrapper.pop(key, None)


def _set_auto_scale_lr(cfg: Any) -> None:
    if not cfg.get('auto_scale_lr', {}).get('base_batch_size'):
        raise UsageError('--auto-scale-lr needs auto_scale_lr=dict(base_batch_size=N) in the config, N being the total '
                         'batch that its learning rate was chosen for.')
    cfg.auto_scale_lr.enable = True


def _set_resume(cfg: Any, source: str) -> None:
    if source == 'auto':
        # Of a training that has no checkpoint yet, the config's start stays.
        cfg.resume = find_latest_checkpoint(cfg.work_dir) is not None
        if not cfg.resume:
            return
        cfg.load_from = None
    elif source.startswith('mmevm://'):
        raise UsageError(f'--resume takes the checkpoint of a training, and the zoo has weights alone. To start from '
                         f'them: --cfg-options load_from={source}, without --resume')
    else:
        cfg.resume, cfg.load_from = True, source
        require_checkpoint(source)
    adopt_seed(cfg)


def train(args: argparse.Namespace) -> None:
    """Train as ``args`` say; data and checkpoints are looked for before anything is built."""
    cfg = load_config(args)
    phases = ('train', 'val') if cfg.get('val_cfg') else ('train',)
    check_data(cfg, phases, f'python tools/train.py {args.config}')
    check_classes(cfg, phases)
    if args.amp:
        _set_amp(cfg)
    _leave_amp_on_cpu(cfg)
    if args.auto_scale_lr:
        _set_auto_scale_lr(cfg)
    make_resumable(cfg)
    if args.resume:
        _set_resume(cfg, args.resume)
    if cfg.get('load_from'):
        require_checkpoint(cfg.load_from)
    runner = build_runner(cfg)
    source = cfg.get('load_from') or f'the last checkpoint in {cfg.work_dir}'
    resume = bool(cfg.get('resume'))
    runner.register_hook(StrictWeights(source, whole=resume, resume=resume))
    runner.register_hook(SingleImageCheck())
    runner.train()


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of ``tools/train.py``; returns the exit status."""
    args = parse_train_args(argv)
    return exit_status(lambda: train(args))
