"""Finds the CUDA toolkit by asking nvcc itself.

Standard library only: setup.py runs this file by its path, before mmevm is installed.
"""

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple


class CudaToolkit(NamedTuple):
    """A CUDA toolkit.

    Attributes:
        home (Path): The folder that holds ``bin/nvcc`` and ``include/``; what CUDA_HOME should be.
        nvcc (Path): The compiler, as it was found; may be a wrapper script elsewhere.
        version (tuple[int, int]): Release of nvcc, for example (13, 0).
    """

    home: Path
    nvcc: Path
    version: tuple[int, int]


def _candidates() -> list[Path]:
    homes = [os.environ.get(name) for name in ('CUDA_HOME', 'CUDA_PATH')]
    on_path = shutil.which('nvcc')
    paths = [Path(home) / 'bin' / 'nvcc' for home in homes if home]
    paths += [Path(on_path)] if on_path else []
    return [*paths, Path('/usr/local/cuda/bin/nvcc')]


def _ask(nvcc: Path, *arguments: str) -> str:
    result = subprocess.run([nvcc, *arguments], capture_output=True, text=True, timeout=60, check=False)
    return result.stdout + result.stderr


def _inspect(nvcc: Path) -> CudaToolkit | None:
    release = re.search(r'release (\d+)\.(\d+)', _ask(nvcc, '--version'))
    if release is None:
        return None
    # The folder above nvcc is not the toolkit where nvcc is a wrapper script; a dry run names the real one.
    top = re.search(r'^#\$ TOP=(.+)$', _ask(nvcc, '--dryrun', '-x', 'cu', os.devnull), flags=re.MULTILINE)
    home = Path(top.group(1).strip()) if top else nvcc.resolve().parent.parent
    return CudaToolkit(home.resolve(), nvcc, (int(release.group(1)), int(release.group(2))))


def find_cuda_toolkit() -> CudaToolkit | None:
    """Return the toolkit of CUDA_HOME, CUDA_PATH, the nvcc on PATH or /usr/local/cuda, in this order, if any."""
    for nvcc in _candidates():
        try:
            toolkit = _inspect(nvcc) if nvcc.is_file() else None
        except (OSError, subprocess.SubprocessError):
            continue
        if toolkit is not None:
            return toolkit
    return None


def matching_cuda_toolkit(torch_cuda: str | None) -> CudaToolkit:
    """Return the toolkit that compiles for a torch of a CUDA release.

    Args:
        torch_cuda (str, optional): ``torch.version.cuda``, for example '13.0'.

    Raises:
        RuntimeError: If there is none; the message says what to install.
    """
    if not torch_cuda:
        raise RuntimeError('torch is a build without CUDA; install a CUDA build of torch')
    toolkit = find_cuda_toolkit()
    if toolkit is None:
        raise RuntimeError('there is no nvcc; put the CUDA toolkit on PATH or set CUDA_HOME')
    if toolkit.version[0] != int(torch_cuda.split('.')[0]):
        found = '{}.{}'.format(*toolkit.version)
        raise RuntimeError(f'nvcc is of CUDA {found} and torch of CUDA {torch_cuda}; install a toolkit of that release')
    return toolkit
