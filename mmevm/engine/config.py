"""From a config file and command line flags to a runner."""

import difflib
import importlib.util
import os
from collections.abc import Mapping
from typing import Any

from mmengine.config import Config
from mmengine.device import get_device
from mmengine.registry import RUNNERS

from mmevm.checkpoint.weights_only import register_weights_only_loader
from mmevm.engine.checks.channels import packed_channels
from mmevm.engine.checks.class_counts import class_counts
from mmevm.engine.checks.datasets import loaders, resolve
from mmevm.engine.checks.images import CheckedImagesHook, checked
from mmevm.engine.checks.paths import move_data_root
from mmevm.engine.checks.samples import Checks
from mmevm.engine.options import parts, read_options
from mmevm.engine.runner.configs import keeping_configs
from mmevm.engine.runner.distributed import prepare_cpu_run, require_launcher
from mmevm.engine.tasks import task_of
from mmevm.errors import UsageError
from mmevm.registry import scope_of
from mmevm.zoo import find_entry

# torch refuses these without workers.
_WORKER_OPTIONS = ('persistent_workers', 'prefetch_factor', 'timeout', 'multiprocessing_context')


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
        fork, original = task_of(cfg).packages
        raise UsageError(
            f'{path} needs {scope} (its default_scope), which is not installed: pip install {fork}, or {original} '
            "together with OpenMMLab's own mmcv."
        )


def read_config(path: str | os.PathLike) -> Any:
    """Read a config file; a missing ``default_scope`` is set to the library of the model's class.

    Args:
        path (str | os.PathLike): A config in any of MMEngine's styles.

    Returns:
        Config: The config.

    Raises:
        UsageError: The file or a library that it builds on is missing, or it cannot be read.
    """
    _require_config_file(path)
    try:
        cfg = Config.fromfile(path)
        list(parts(cfg.get('model'), 'model'))  # configs with `read_base` import classes when they are asked for
        if scope_of(cfg):
            cfg.default_scope = scope_of(cfg)
    except ModuleNotFoundError as error:
        raise UsageError(f'{path} needs a library that is not installed: {error}') from error
    except ImportError as error:
        raise UsageError(f'{path} cannot be read: {error}') from error
    # A config is a program, which can fail in any way.
    except Exception as error:
        raise UsageError(f'{path} cannot be read: {type(error).__name__}: {error}') from error
    _require_library(cfg, path)
    return cfg


def load_config(
    path: str | os.PathLike,
    cfg_options: Mapping[str, Any] | None = None,
    launcher: str = 'none',
    work_dir: str | None = None,
) -> Any:
    """Read a config and merge the flags that training and testing share into it.

    Args:
        path (str | os.PathLike): A config in any of MMEngine's styles.
        cfg_options (Mapping[str, Any], optional): Values of ``--cfg-options`` by dotted key; see
            :func:`mmevm.engine.options.read_options`.
        launcher (str): How a distributed run was started.
        work_dir (str, optional): The work directory, by default the config's own or ``work_dirs/<config name>``.

    Returns:
        Config: The merged config.

    Raises:
        UsageError: As :func:`read_config`, or an option or the launcher does not fit.
    """
    cfg = read_config(path)
    options = read_options(cfg_options or {}, cfg)
    if 'data_root' in options:
        move_data_root(cfg, options.pop('data_root'))
    cfg.merge_from_dict(options)
    cfg.launcher = launcher
    stem = os.path.splitext(os.path.basename(path))[0]
    cfg.work_dir = work_dir or cfg.get('work_dir') or os.path.join('work_dirs', stem)
    if cfg.launcher != 'none':
        require_launcher(cfg.launcher)
    set_loaders(cfg)
    return cfg


def on_cpu() -> bool:
    """Return whether MMEngine will run on the CPU because there is no accelerator."""
    return get_device() == 'cpu'


def set_loaders(cfg: Any) -> None:
    """Add the library's defaults to the data loaders, and remove what torch refuses without workers."""
    defaults = task_of(cfg).loader
    if defaults:
        defaults = dict(defaults, pin_memory=not on_cpu())
    for _, _, loader in loaders(cfg, ('train', 'val', 'test')):
        for option, value in defaults.items():
            loader.setdefault(option, value)
        if not loader.get('num_workers'):
            for option in _WORKER_OPTIONS:
                loader.pop(option, None)


def require_checkpoint(path: str) -> None:
    """Raise an error if ``path`` is a local file that does not exist, or an unknown name of the zoo."""
    if path.startswith('mmevm://'):
        find_entry(path)
    elif '://' not in path and not os.path.isfile(os.path.expanduser(path)):
        raise UsageError(f'Checkpoint not found: {os.path.abspath(os.path.expanduser(path))}')


def build_runner(cfg: Any, skip_broken: bool = False) -> Any:
    """Build the runner that ``cfg`` asks for; from here on, checkpoints are opened weights-only in this process.

    Args:
        cfg (Config): A complete config.
        skip_broken (bool): Leave out images that cannot be read instead of refusing them.

    Returns:
        Runner: It checks the images of its data loaders when it builds them.
    """
    register_weights_only_loader()
    if cfg.launcher != 'none' and on_cpu():
        prepare_cpu_run(cfg)
    kind = resolve(RUNNERS, cfg.get('runner_type', 'Runner'), cfg.get('default_scope'))
    classes = min(class_counts(cfg).values(), default=None)
    checks = Checks(skip_broken, classes, channels=packed_channels(cfg))
    runner = keeping_configs(checked(kind, checks)).from_cfg(cfg)
    runner.register_hook(CheckedImagesHook())
    return runner
