"""Loads the compiled extension, ``mmevm/_C*.so``, whose operators register themselves under ``torch.ops.mmevm``."""

from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import torch


def _load() -> str | None:
    """Returns None once the operators are registered, else the reason why they are not."""
    folder = Path(__file__).resolve().parent.parent
    names = [f'_C{suffix}' for suffix in ('.abi3.so', *EXTENSION_SUFFIXES)]
    path = next((folder / name for name in names if (folder / name).is_file()), None)
    if path is None:
        return f'the extension mmevm._C is not built (no _C*.so in {folder})'
    try:
        torch.ops.load_library(path)
    except OSError as error:
        return f'{path} does not load with torch {torch.__version__}: {error}'
    return None


LOAD_ERROR: str | None = _load()
"""Why the extension is not loaded, or None when it is."""


DEVICES: frozenset[str] = frozenset(
    device
    for device, key in (('cpu', 'CPU'), ('cuda', 'CUDA'), ('meta', 'CPU'))
    if LOAD_ERROR is None and torch._C._dispatch_has_kernel_for_dispatch_key('mmevm::visual_scan', key)
)
"""Device types that the extension serves; fake kernels serve 'meta'."""
