"""From a config file and command line flags to a runner."""

import argparse
import difflib
import importlib.util
import os
from typing import Any

from mmevm.engine.checks.classes import class_counts
from mmevm.engine.checks.datasets import resolve
from mmevm.engine.checks.paths import move_data_root
from mmevm.engine.options import read_options
from mmevm.engine.runner.distributed import prepare_cpu_run, require_launcher
from mmevm.errors import UsageError
from mmevm.registry import scope_of
from mmevm.zoo import find_entry

_PACKAGES = {'mmdet': 'mmdetection', 'mmseg': 'mmsegmentation', 'mmpretrain': 'mmpretrain'}


def _require_config_file(path: str | os.PathLike) -> None:
    if os.path.isfile(path):
        return
    message = f'Config file not found: {os.path.abspath(path)}'
    folder = os.path.dirname(os.path.abspath(path))
    if os.path.isdir(folder):
        names = [name for name in os.listdir(folder) if name.endswith('.py')]
        close = difflib.get_close_matches(os.path.basename(path), names)
        if close:
            message += f'\nDid you mean {", ".join(close)}?'
    raise UsageError(message)


def _require_library(cfg: Any, path: str | os.PathLike) -> None:
    scope = cfg.get('default_scope')
    if scope and scope != 'mmengine' and importlib.util.find_spec(scope) is None:
        name = _PACKAGES.get(scope, scope)
        raise UsageError(
            f'{path} needs {scope} (its default_scope), which is not installed: pip install '
            f"onedl-{name}, or {name if scope != 'mmdet' else 'mmdet'} beside OpenMMLab's own mmcv."
        )


def read_config(path: str | os.PathLike) -> Any:
    """Read a config file; its ``default_scope`` is set where only the model's class tells it.

    Args:
        path (str | os.PathLike): A config in any of MMEngine's styles.

    Returns:
        Config: The config.

    Raises:
        UsageError: The file, or a library that it builds on, is absent, or it cannot be read.
    """
    from mmengine.config import Config

    _require_config_file(path)
    try:
        cfg = Config.fromfile(path)
        if scope_of(cfg):
            cfg.default_scope = scope_of(cfg)
    except ImportError as error:
        raise UsageError(f'{path} needs a library that is not installed: {error}') from error
    # A config is a program, which can fail in any way.
    except Exception as error:
        raise UsageError(f'{path} cannot be read: {type(error).__name__}: {error}') from error
    _require_library(cfg, path)
    return cfg


def load_config(args: argparse.Namespace) -> Any:
    """Read ``args.config`` and merge ``--cfg-options``, ``--launcher`` and ``--work-dir`` into it.

    Args:
        args (argparse.Namespace): Parsed by :mod:`mmevm.apis.arguments`.

    Returns:
        Config: The merged config.

    Raises:
        UsageError: As :func:`read_config`.
    """
    cfg = read_config(args.config)
    options = read_options(args.cfg_options, cfg)
    if 'data_root' in options:
        move_data_root(cfg, options.pop('data_root'))
    cfg.merge_from_dict(options)
    cfg.launcher = args.launcher
    stem = os.path.splitext(os.path.basename(args.config))[0]
    cfg.work_dir = args.work_dir or cfg.get('work_dir') or os.path.join('work_dirs', stem)
    if cfg.launcher != 'none':
        require_launcher(cfg.launcher)
    set_loaders(cfg)
    return cfg


def on_cpu() -> bool:
    """Whether MMEngine will run on the CPU, for want of any accelerator."""
    from mmengine.device import get_device

    return get_device() == 'cpu'


def set_loaders(cfg: Any) -> None:
    """Give the data loaders what MMPretrain's tools would, and take from them what torch refuses without workers."""
    for key in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        loader = cfg.get(key)
        if not isinstance(loader, dict):
            continue
        if cfg.get('default_scope') == 'mmpretrain':
            # MMPretrain's configs leave these to its own tools; MMEngine's defaults collate otherwise.
            loader.setdefault('collate_fn', dict(type='default_collate'))
            loader.setdefault('pin_memory', not on_cpu())
            loader.setdefault('persistent_workers', True)
        if not loader.get('num_workers'):
            for option in ('persistent_workers', 'prefetch_factor', 'timeout', 'multiprocessing_context'):
                loader.pop(option, None)


def require_checkpoint(path: str) -> None:
    """Raise an error if ``path`` is meant to be a file and is none, or a name of the zoo and is none."""
    if path.startswith('mmevm://'):
        find_entry(path)
    elif '://' not in path and not os.path.isfile(os.path.expanduser(path)):
        raise UsageError(f'Checkpoint not found: {os.path.abspath(os.path.expanduser(path))}')


def build_runner(cfg: Any, skip_broken: bool = False) -> Any:
    """Build the runner that ``cfg`` asks for, with every checkpoint opened weights-only from here on.

    Args:
        cfg (Config): A whole config.
        skip_broken (bool): Leave out images that cannot be read, instead of refusing them.

    Returns:
        Runner: It checks the images of its data loaders when it builds them.
    """
    from mmengine.registry import RUNNERS

    from mmevm.checkpoint.weights_only import register_weights_only_loader
    from mmevm.engine.checks.images import CheckedImagesHook, checked
    from mmevm.engine.checks.samples import Checks

    register_weights_only_loader()
    if cfg.launcher != 'none' and on_cpu():
        prepare_cpu_run(cfg)
    kind = resolve(RUNNERS, cfg.get('runner_type', 'Runner'), cfg.get('default_scope'))
    checks = Checks(skip_broken, min(class_counts(cfg).values(), default=None))
    runner = checked(kind, checks).from_cfg(cfg)
    runner.register_hook(CheckedImagesHook())
    return runner
