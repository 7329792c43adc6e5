"""mmevm's registries: children of MMEngine's roots, found from the scope of any library by ``type='mmevm.<Name>'``."""

import inspect
from typing import Any

from mmengine.registry import HOOKS as ROOT_HOOKS
from mmengine.registry import LOOPS as ROOT_LOOPS
from mmengine.registry import MODEL_WRAPPERS as ROOT_MODEL_WRAPPERS
from mmengine.registry import MODELS as ROOT_MODELS
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS as ROOT_CONSTRUCTORS
from mmengine.registry import Registry

MODELS = Registry('model', parent=ROOT_MODELS, scope='mmevm', locations=['mmevm.backbones'])
OPTIM_WRAPPER_CONSTRUCTORS = Registry(
    'optimizer wrapper constructor', parent=ROOT_CONSTRUCTORS, scope='mmevm', locations=['mmevm.engine.optimizers']
)
HOOKS = Registry('hook', parent=ROOT_HOOKS, scope='mmevm', locations=['mmevm.engine.runner.resume'])
LOOPS = Registry('loop', parent=ROOT_LOOPS, scope='mmevm', locations=['mmevm.engine.runner.resume'])
MODEL_WRAPPERS = Registry(
    'model wrapper', parent=ROOT_MODEL_WRAPPERS, scope='mmevm', locations=['mmevm.engine.runner.distributed']
)

BACKBONES: dict[str, Any] = {}
"""The backbone classes of mmevm by name."""

LIBRARIES = ('mmdet', 'mmseg', 'mmpretrain')
"""The scopes whose configs the tools serve."""


def register_backbone(cls: type) -> type:
    """Register a backbone class under ``mmevm.<Name>`` and, in MMEngine's root, under its plain name.

    A library's registry falls back to the root for unknown names, so that after
    ``custom_imports = dict(imports=['mmevm'])`` the unscoped ``type='<Name>'`` works in mmdet, mmseg and mmpretrain
    configs.
    """
    BACKBONES[cls.__name__] = cls
    MODELS.register_module(module=cls)
    ROOT_MODELS.register_module(module=cls)
    return cls


def type_name(settings: Any, default: str | None = None) -> str | None:
    """Return the bare name of what a part of a config builds.

    A ``type`` may be a registered name with or without its scope, the full path of a class, as MMEngine dumps it, or,
    in configs with ``read_base``, the class or function itself.

    Args:
        settings (dict): Part of a config, such as ``cfg.optim_wrapper``; other values have no type.
        default (str, optional): The name without a ``type``.

    Returns:
        str | None: E.g. ``'OptimWrapper'`` for ``'mmengine.OptimWrapper'``.
    """
    kind = settings.get('type') if isinstance(settings, dict) else None
    if kind is None:
        return default
    name = kind if isinstance(kind, str) else getattr(kind, '__name__', type(kind).__name__)
    return name.rpartition('.')[2]


def package_of(kind: Any) -> str:
    """Return the package of a class or function, or of its path; '' for other values."""
    return (kind if isinstance(kind, str) else getattr(kind, '__module__', None) or '').partition('.')[0]


def scope_of(cfg: Any) -> str | None:
    """Return the library of a config: its ``default_scope`` or, without one, that of its model's class.

    Args:
        cfg (Config): A complete config.

    Returns:
        str | None: ``'mmdet'``, ``'mmseg'`` or ``'mmpretrain'``; another ``default_scope``; or None.
    """
    if cfg.get('default_scope'):
        return cfg.default_scope
    kind = (cfg.get('model') or {}).get('type')
    # A user's own class is of the library that it extends.
    kinds = inspect.getmro(kind) if inspect.isclass(kind) else [kind] if isinstance(kind, str) else []
    return next((scope for scope in map(package_of, kinds) if scope in LIBRARIES), None)
