"""The releases of torch that the extension serves. Standard library only: setup.py runs this file by its path."""

import re

OLDEST_TORCH = (2, 10)
"""The first release with all that the extension takes from LibTorch's stable ABI."""


# Two digits for each part of the version.
ABI_TARGET = '0x' + ''.join(f'{part:02x}' for part in OLDEST_TORCH).ljust(16, '0')
"""TORCH_TARGET_VERSION: with it, newer headers offer nothing that this release does not have."""


def torch_problem(version: str) -> str | None:
    """Return why the extension serves no torch of this version (``torch.__version__``), or None if it does."""
    if tuple(int(part) for part in re.findall(r'\d+', version)[:2]) >= OLDEST_TORCH:
        return None
    needed = f'torch {OLDEST_TORCH[0]}.{OLDEST_TORCH[1]} or newer'
    return f'the compiled operators, many times faster on the CPU, need {needed}, this is torch {version}'
