"""EfficientVMamba for OpenMMLab: scan operators, backbones, configs and checkpoints.

Importing the package registers it with MMEngine; see :mod:`mmevm.registration`. Where neither torch nor MMEngine was
imported before, this waits until one of them is, or a part of mmevm that needs them: :mod:`mmevm.deploy` needs neither.
"""

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import MetaPathFinder
from types import ModuleType
from typing import Any

from mmevm.version import __version__

__all__ = ['__version__', 'backbones', 'ops', 'zoo']

_REGISTRATION = 'mmevm.registration'
_WITHOUT_TORCH = ('mmevm.deploy', 'mmevm.version', _REGISTRATION)


class _RegisterFirst(MetaPathFinder):
    """Registers mmevm before the first import that needs it, and answers that import with what is loaded by then."""

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> Any:
        needed = name in ('torch', 'mmengine') or (name.startswith('mmevm.') and not name.startswith(_WITHOUT_TORCH))
        if not needed:
            return None
        sys.meta_path.remove(self)
        import_module(_REGISTRATION)
        module = sys.modules.get(name)
        if module is None or module.__spec__ is None:
            return None
        # The import system takes the spec that the module has now, and would execute the module once more.
        methods = vars(module.__spec__.loader)
        methods['create_module'] = lambda spec: module
        methods['exec_module'] = lambda module: [methods.pop(method) for method in ('create_module', 'exec_module')]
        return module.__spec__


def __getattr__(name: str) -> ModuleType:
    if name in ('backbones', 'mmcv_ext', 'ops', 'zoo'):
        return import_module(f'mmevm.{name}')
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')


if 'torch' in sys.modules or 'mmengine' in sys.modules:
    import_module(_REGISTRATION)
else:
    sys.meta_path.insert(0, _RegisterFirst())
