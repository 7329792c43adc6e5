"""``tools/test.py``."""

import argparse
import logging
from collections.abc import Sequence
from typing import Any

from mmengine.logging import print_log

from mmevm.apis.arguments import parse_test_args
from mmevm.engine.checks.classes import check_classes
from mmevm.engine.checks.classifier_classes import check_classifier
from mmevm.engine.checks.paths import check_data
from mmevm.engine.config import build_runner, load_config, require_checkpoint
from mmevm.engine.hooks.pretrained import skip_overwritten
from mmevm.engine.hooks.stop import interruptible
from mmevm.engine.hooks.weights import StrictWeights
from mmevm.engine.tta import set_tta
from mmevm.errors import UsageError, exit_status


def _set_drawing(cfg: Any, args: argparse.Namespace) -> None:
    hook = cfg.get('default_hooks', {}).get('visualization')
    if hook is None:
        raise UsageError(
            '--show and --show-dir need default_hooks.visualization in the config, e.g. '
            "visualization=dict(type='DetVisualizationHook')."
        )
    # The libraries' hooks differ in how they are switched on and where they write.
    if cfg.get('default_scope') == 'mmpretrain':
        if args.tta:
            raise UsageError(
                'MMPretrain cannot draw under test-time augmentation. Leave out --tta, or --show and --show-dir.'
            )
        hook.update(enable=True, show=args.show, wait_time=args.wait_time, out_dir=args.show_dir)
        return
    hook.update(draw=True, show=args.show, wait_time=args.wait_time)
    if not args.show_dir:
        return
    if cfg.get('default_scope') == 'mmseg':
        cfg.visualizer.save_dir = args.show_dir
    else:
        hook.test_out_dir = args.show_dir


def _dump_metric(cfg: Any, path: str) -> Any:
    if not path.endswith(('.pkl', '.pickle')):
        raise UsageError(f'--out must end with .pkl or .pickle, got {path}')
    if cfg.get('default_scope') == 'mmdet':
        from mmdet.evaluation import DumpDetResults

        return DumpDetResults(out_file_path=path)
    from mmengine.evaluator import DumpResults

    return DumpResults(out_file_path=path)


def _leave_masks_unmeasured(cfg: Any) -> None:
    """Takes masks from what mmdet's metrics measure if the config's detector is built without its mask head."""
    heads = cfg.model.get('roi_head')
    if not isinstance(heads, dict) or heads.get('mask_head'):
        return
    evaluators = cfg.get('test_evaluator') or []
    for evaluator in evaluators if isinstance(evaluators, list | tuple) else [evaluators]:
        metrics = evaluator.get('metric')
        metrics = [metrics] if isinstance(metrics, str) else list(metrics or [])
        if 'segm' not in metrics:
            continue
        evaluator.metric = [metric for metric in metrics if metric != 'segm']
        if not evaluator.metric:
            raise UsageError(
                'test_evaluator measures masks (segm), and the model has no roi_head.mask_head. To '
                'measure its boxes: --cfg-options test_evaluator.metric=bbox'
            )
        print_log('The model has no mask head: masks (segm) are not measured', logger='current', level=logging.WARNING)


def evaluate(args: argparse.Namespace) -> None:
    """Evaluate as ``args`` say; data and checkpoint are looked for before anything is built."""
    cfg = load_config(args)
    require_checkpoint(args.checkpoint)
    check_data(cfg, ('test',), f'python tools/test.py {args.config} {args.checkpoint}')
    check_classifier(cfg, ('test',))
    check_classes(cfg, ('test',))
    cfg.load_from = args.checkpoint
    dump = _dump_metric(cfg, args.out) if args.out else None
    if args.show or args.show_dir:
        _set_drawing(cfg, args)
    _leave_masks_unmeasured(cfg)
    if args.tta:
        set_tta(cfg)
    runner = build_runner(cfg, args.skip_broken)
    strict = StrictWeights(args.checkpoint, whole=True)
    runner.register_hook(strict)
    if 'runner_type' in cfg:  # MMEngine's other runner initialises models for evaluations, too
        skip_overwritten(runner, strict, args.checkpoint)
    if dump is not None:
        runner.test_evaluator.metrics.append(dump)
    runner.test()


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of ``tools/test.py``; returns the exit status."""
    args = parse_test_args(argv)
    return interruptible(lambda: exit_status(lambda: evaluate(args)))
