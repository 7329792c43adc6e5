"""Evaluation, as ``tools/test.py`` runs it."""

import logging
import os
from collections.abc import Sequence
from typing import Any

from mmengine.logging import print_log
from mmengine.utils import get_object_from_string

from mmevm.apis.arguments import parse_test_args
from mmevm.apis.exported import SUFFIX, SameClasses, use_exported
from mmevm.apis.own_data import TEST_CONFIG, save_config, use_data
from mmevm.engine.checks.channels import check_channels
from mmevm.engine.checks.classes import check_classes
from mmevm.engine.checks.datasets import evaluators
from mmevm.engine.checks.paths import check_data
from mmevm.engine.config import build_runner, load_config, require_checkpoint
from mmevm.engine.hooks.stop import interruptible
from mmevm.engine.hooks.weights import StrictWeights, skip_overwritten
from mmevm.engine.runner.configs import renamed
from mmevm.engine.runner.distributed import is_first_process
from mmevm.engine.tasks import Task, task_of
from mmevm.engine.tta import set_tta
from mmevm.errors import UsageError, exit_status

_NO_DRAWING = 'MMPretrain cannot draw under test-time augmentation. Leave out --tta, or --show and --show-dir.'
_NO_HOOK = (
    '--show and --show-dir need default_hooks.visualization in the config, e.g. '
    "visualization=dict(type='DetVisualizationHook')."
)


def _set_drawing(cfg: Any, task: Task, show: bool, folder: str | None, wait_time: float) -> None:
    cfg.default_hooks.visualization.update({task.draw_switch: True, 'show': show, 'wait_time': wait_time})
    if folder:
        cfg.merge_from_dict({task.draw_folder: folder})


def _skip_mask_metrics(cfg: Any) -> None:
    """Remove ``segm`` from mmdet's metrics if the config builds its detector without the mask head."""
    heads = cfg.model.get('roi_head')
    if not isinstance(heads, dict) or heads.get('mask_head'):
        return
    for _, _, evaluator in evaluators(cfg, ('test',)):
        metrics = evaluator.get('metric')
        metrics = [metrics] if isinstance(metrics, str) else list(metrics or [])
        if 'segm' not in metrics:
            continue
        evaluator['metric'] = [metric for metric in metrics if metric != 'segm']
        if not evaluator['metric']:
            raise UsageError(
                'test_evaluator measures masks (segm), and the model has no roi_head.mask_head. To '
                'measure its boxes: --cfg-options test_evaluator.metric=bbox'
            )
        print_log('The model has no mask head: masks (segm) are not measured', logger='current', level=logging.WARNING)


def evaluate(
    config: str,
    checkpoint: str,
    *,
    out: str | None = None,
    show: bool = False,
    show_dir: str | None = None,
    wait_time: float = 2.0,
    tta: bool = False,
    data: str | None = None,
    skip_broken: bool = False,
    **overrides: Any,
) -> None:
    """Evaluate a checkpoint; data and checkpoint are checked before anything is built.

    Args:
        config (str): Config file.
        checkpoint (str): Checkpoint file or URL, or an exported model (``.onnx``).
        out (str, optional): Pickle file for the predictions.
        show (bool): Show each image with its predictions in a window.
        show_dir (str, optional): Folder for images with predictions.
        wait_time (float): Seconds that ``show`` keeps an image.
        tta (bool): Test-time augmentation.
        data (str, optional): A user's dataset instead of the config's; see :mod:`mmevm.apis.own_data`.
        skip_broken (bool): Leave out images that cannot be read.
        **overrides (Any): Other arguments of :func:`mmevm.engine.config.load_config`.
    """
    cfg = load_config(config, **overrides)
    task = task_of(cfg)
    exported = checkpoint.endswith(SUFFIX)
    draws = bool(show or show_dir)
    if out and not out.endswith(('.pkl', '.pickle')):
        raise UsageError(f'--out must end with .pkl or .pickle, got {out}')
    if exported and tta:
        raise UsageError('--tta: exported models predict without augmentation. Leave out --tta.')
    if draws and tta and not task.draws_tta:
        raise UsageError(_NO_DRAWING)
    if draws and cfg.get('default_hooks', {}).get('visualization') is None:
        raise UsageError(_NO_HOOK)
    require_checkpoint(checkpoint)
    if data:
        use_data(cfg, data, config, skip_broken, checkpoint)
        if is_first_process(cfg.launcher):
            save_config(cfg, TEST_CONFIG)
    check_data(cfg, ('test',), f'python tools/test.py {config} {checkpoint}')
    check_classes(cfg, ('test',))
    check_channels(cfg, ('test',))
    cfg.load_from, cfg.resume = None if exported else checkpoint, False
    if draws:
        _set_drawing(cfg, task, show, show_dir, wait_time)
    _skip_mask_metrics(cfg)
    if exported:
        use_exported(cfg, checkpoint)
    elif tta:
        set_tta(cfg)
    cfg = renamed(cfg, os.path.join(cfg.work_dir, TEST_CONFIG))  # the config of the training run stays as it is
    runner = build_runner(cfg, skip_broken)
    if exported:
        runner.register_hook(SameClasses())
    else:
        _load_strictly(runner, checkpoint)
    if out:
        runner.test_evaluator.metrics.append(get_object_from_string(task.dump_metric)(out_file_path=out))
    runner.test()


def _load_strictly(runner: Any, checkpoint: str) -> None:
    strict = StrictWeights(checkpoint, complete=True)
    runner.register_hook(strict)
    if 'runner_type' in runner.cfg:  # MMEngine's FlexibleRunner initialises models for evaluations, too
        skip_overwritten(runner, strict, checkpoint)


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``tools/test.py`` and return its exit status."""
    args = parse_test_args(argv)
    return interruptible(lambda: exit_status(lambda: evaluate(**args)))
