"""Loads the compiled extension, whose operators register themselves under ``torch.ops.mmevm``.

``mmevm/_C.abi3.so`` has the CPU's kernels; ``mmevm/_C_cuda.abi3.so``, which only a CUDA toolkit builds, has the GPU's.
"""

import re
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import NamedTuple

import torch

from mmevm.ops.torch_release import torch_problem

_FOLDER = Path(__file__).resolve().parent.parent
_REBUILD = 'reinstall with MMEVM_BUILD_EXT=1 and read the messages: pip install -v --no-build-isolation -e .'
_UPGRADE = 'upgrade torch, then install mmevm again'


def _find(name: str) -> Path | None:
    """Return the extension of this name, if it is built."""
    files = (_FOLDER / f'{name}{suffix}' for suffix in ('.abi3.so', *EXTENSION_SUFFIXES))
    return next((path for path in files if path.is_file()), None)


def _load(path: Path) -> str | None:
    """Return why the operators of a file are not registered, or None once they are."""
    try:
        torch.ops.load_library(path)
    except OSError as error:
        return f'{path} does not load with torch {torch.__version__}: {error}'
    return None


def load() -> tuple[str | None, str]:
    """Load the CPU's operators; return why they are not registered, or None, and what would help."""
    problem = torch_problem(torch.__version__)
    if problem is not None:
        return problem, _UPGRADE
    path = _find('_C')
    return f'the extension mmevm._C is not built (no _C*.so in {_FOLDER})' if path is None else _load(path), _REBUILD


def load_cuda() -> str | None:
    """Load the CUDA operators; return why they are not registered, or None."""
    path = _find('_C_cuda')
    return 'the extension has no cuda kernels' if LOAD_ERROR is not None or path is None else _load(path)


LOAD_ERROR, LOAD_REMEDY = load()
"""Why the extension is not loaded, or None when it is; and what would make it load."""

CUDA_LOAD_ERROR = load_cuda()
"""Why its CUDA kernels are not loaded, or None when they are."""


DEVICES: frozenset[str] = frozenset(
    device
    for device, key in (('cpu', 'CPU'), ('cuda', 'CUDA'), ('meta', 'CPU'))
    if LOAD_ERROR is None and torch._C._dispatch_has_kernel_for_dispatch_key('mmevm::visual_scan', key)
)
"""Device types that the extension serves; fake kernels serve 'meta'."""


class Architecture(NamedTuple):
    """A GPU architecture that the CUDA kernels are compiled for, as in TORCH_CUDA_ARCH_LIST.

    Attributes:
        capability (tuple[int, int]): Compute capability, for example (9, 0).
        specific (bool): Whether the code uses what this capability alone has, as that for '9.0a' does.
        ptx (bool): Whether there is PTX, too, which the drivers of later GPUs compile.
    """

    capability: tuple[int, int]
    specific: bool
    ptx: bool

    def serves(self, capability: tuple[int, int]) -> bool:
        """Return whether a GPU of a compute capability can run the code."""
        if self.specific:
            return capability == self.capability
        if self.ptx and capability >= self.capability:
            return True
        return capability[0] == self.capability[0] and capability[1] >= self.capability[1]


def parse_architectures(text: str) -> tuple[Architecture, ...]:
    """Return the architectures of a list such as '8.0,9.0+PTX'."""
    found = re.findall(r'(\d+)\.(\d+)([a-z]?)(\+PTX)?', text)
    return tuple(Architecture((int(a), int(b)), bool(letter), bool(ptx)) for a, b, letter, ptx in found)


ARCHITECTURES = parse_architectures('' if CUDA_LOAD_ERROR else torch.ops.mmevm._cuda_architectures())
"""What the extension's CUDA kernels are compiled for; empty where it does not say."""


def architecture_problem(device: torch.device | str) -> str | None:
    """Return why the CUDA kernels do not run on a GPU, or None if they have code for it."""
    try:
        capability = torch.cuda.get_device_capability(device)
    except (AssertionError, RuntimeError):  # fake tensors have devices that need not exist
        return None
    if not ARCHITECTURES or any(architecture.serves(capability) for architecture in ARCHITECTURES):
        return None
    built = ', '.join(f'{a.capability[0]}.{a.capability[1]}' for a in ARCHITECTURES)
    this = f'{capability[0]}.{capability[1]}'
    return f'its CUDA kernels are compiled for compute capability {built}, and this GPU has {this}'
