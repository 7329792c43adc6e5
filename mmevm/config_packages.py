"""Where MMEngine finds the configs of other libraries, as in ``_base_ = 'mmseg::…'`` and ``get_config('mmseg::…')``.

MMEngine looks a library up by the name of its distribution, ``mmsegmentation``. The maintained forks are distributed
under other names (``onedl-mmsegmentation``), which it takes for absent. For a name that no distribution has, it looks
for a module of that name: by its import name it finds whatever can be imported, in any kind of installation.
"""

from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec

from mmengine.config.utils import MODULE2PACKAGE


def _distributed(package: str) -> bool:
    try:
        distribution(package)
    except PackageNotFoundError:
        return False
    return True


def _importable(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def find_configs_by_import_name() -> None:
    """Let MMEngine look up by its import name what has another distribution than it expects, and know mmevm."""
    for module, package in list(MODULE2PACKAGE.items()):
        if not _distributed(package) and _importable(module):
            MODULE2PACKAGE[module] = module
    MODULE2PACKAGE.setdefault('mmevm', 'mmevm')
