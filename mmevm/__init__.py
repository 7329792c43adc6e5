"""EfficientVMamba for OpenMMLab: scan operators, backbones, configs and checkpoints.

Importing the package registers it with MMEngine; see :mod:`mmevm.registration`. Where neither torch nor MMEngine was
imported before, this waits until one of them is, or a part of mmevm that needs them: :mod:`mmevm.deploy` needs neither.
"""

import sys
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

from mmevm.version import __version__

__all__ = ['__version__', 'backbones', 'ops', 'zoo']

_REGISTRATION = 'mmevm.registration'
_WITHOUT_TORCH = ('mmevm.deploy', 'mmevm.version', _REGISTRATION)


class _Loaded(Loader):
    """Loader of a module that is loaded already; it restores the module's own spec."""

    def __init__(self, module: ModuleType) -> None:
        self.module, self.spec = module, module.__spec__

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return self.module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self.spec


class _RegisterFirst(MetaPathFinder):
    """Registers mmevm before the first import that needs it, and answers that import with what is loaded by then."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        needed = name in ('torch', 'mmengine') or (name.startswith('mmevm.') and not name.startswith(_WITHOUT_TORCH))
        if not needed:
            return None
        sys.meta_path.remove(self)
        import_module(_REGISTRATION)
        module = sys.modules.get(name)
        if module is None:
            return None
        # With the module's own spec, which it prefers, the import system would execute the module once more.
        module.__spec__ = ModuleSpec(name, _Loaded(module))
        return module.__spec__


def __getattr__(name: str) -> ModuleType:
    if name in ('backbones', 'mmcv_ext', 'ops', 'zoo'):
        return import_module(f'mmevm.{name}')
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')


if 'torch' in sys.modules or 'mmengine' in sys.modules:
    import_module(_REGISTRATION)
else:
    sys.meta_path.insert(0, _RegisterFirst())
