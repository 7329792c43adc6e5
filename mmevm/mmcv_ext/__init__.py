"""mmcv without its compiled operators.

``import mmcv.ops`` asks the extension ``mmcv._ext`` for about a hundred functions. Where mmcv was installed without it,
as mmcv-lite, :mod:`mmevm.mmcv_ext.operators` takes its place once mmevm is imported: the operators that detectors and
segmentors call are torch's and torchvision's, and every other name exists and says, when it is called, what to install.
A compiled extension is never replaced.
"""

import importlib.util
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType

_EXTENSION = 'mmcv._ext'
_OPERATORS = Path(__file__).with_name('operators.py')


class _Finder:
    """Finds the operators as ``mmcv._ext``; last in ``sys.meta_path``, so that a compiled extension comes first."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        return importlib.util.spec_from_file_location(name, _OPERATORS) if name == _EXTENSION else None


def register() -> None:
    """Stand in for ``mmcv._ext`` in this process where mmcv has none. Imports nothing."""
    if _Finder not in sys.meta_path:
        sys.meta_path.append(_Finder)


def find_extension() -> Path | None:
    """Return the file that is ``mmcv._ext`` in mmcv's own folder: compiled, or what ``mmevm.mmcv_ext install`` wrote.

    Raises:
        ModuleNotFoundError: If mmcv is not installed.
    """
    spec = PathFinder.find_spec(_EXTENSION, [str(mmcv_folder())])
    return Path(spec.origin) if spec and spec.origin else None


def mmcv_folder() -> Path:
    """Return the folder of mmcv, without importing it.

    Raises:
        ModuleNotFoundError: If mmcv is not installed.
    """
    spec = importlib.util.find_spec('mmcv')
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError('mmcv is not installed: pip install mmcv-lite (or mmcv, or onedl-mmcv)')
    return Path(spec.submodule_search_locations[0])


def is_compiled() -> bool:
    """Return whether mmcv has compiled operators.

    Raises:
        ModuleNotFoundError: If mmcv is not installed.
    """
    found = find_extension()
    return found is not None and found.suffix != '.py'


def describe() -> str:
    """Return which operators mmcv uses, as a phrase.

    Raises:
        ModuleNotFoundError: If mmcv is not installed.
    """
    found = find_extension()
    if found is None:
        return "torchvision's, through mmevm.mmcv_ext once mmevm is imported"
    return f'compiled ({found.name})' if is_compiled() else "torchvision's, through mmevm.mmcv_ext"
