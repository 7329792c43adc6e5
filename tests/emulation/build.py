"""Compiles parts of csrc for tests: csrc/cuda for the CPU, and csrc/core for a host that is not PyTorch."""

import ctypes
import functools
import hashlib
import os
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import torch
from torch.utils.cpp_extension import include_paths, library_paths

from mmevm.ops import autograd
from mmevm.ops.torch_release import ABI_TARGET

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).parent
CORE, CUDA = ROOT / 'csrc' / 'core', ROOT / 'csrc' / 'cuda'
OPERATORS = ROOT / 'mmevm' / 'ops'
CXX = os.environ.get('CXX', 'g++')
FLAGS = ('-std=c++17', '-fPIC', '-Wall', '-Wno-unknown-pragmas', f'-I{ROOT / "csrc"}')


def _run(command: Sequence[object]) -> None:
    result = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    if result.returncode:
        raise RuntimeError(f'{" ".join(map(str, command))}\n{result.stderr}')


def _compile(source: Path, folder: Path, flags: Sequence[str]) -> Path:
    target = folder / f'{source.name}.o'
    _run([CXX, *flags, '-x', 'c++', '-c', source, '-o', target])
    return target


def _build(
    name: str, sources: Sequence[Path], flags: Sequence[str], libraries: Sequence[str], objects: Sequence[Path] = ()
) -> Path:
    """Return a shared library, compiled unless there is one of the same sources, objects, torch and flags."""
    total = hashlib.sha256(f'{torch.__version__} {flags}'.encode())
    for path in sorted([*sources, *objects, *ROOT.glob('csrc/*/*.*h'), OPERATORS / 'schemas.inc', *HERE.glob('*.h')]):
        total.update(path.read_bytes())
    folder = ROOT / 'build' / 'emulation' / total.hexdigest()[:16]
    library = folder / f'lib{name}.so'
    if not library.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
            compiled = list(pool.map(partial(_compile, folder=folder, flags=flags), sources))
        draft = folder / f'{library.name}.{os.getpid()}'
        _run([CXX, '-shared', '-o', draft, *compiled, *objects, *libraries])
        draft.replace(library)
    return library


@functools.cache
def load_emulation() -> None:
    """Compiles the library if it is not there (a minute on two cores), and registers ``torch.ops.mmevm_emulated``."""
    launchers = [path for path in sorted(CUDA.glob('*.cpp')) if path.name != 'register.cpp']
    sources = [*sorted(CUDA.glob('*.cu')), *launchers, CORE / 'checks.cpp', HERE / 'emulation.cpp', HERE / 'faults.cpp']
    includes = [f'-I{path}' for path in (OPERATORS, *include_paths())]
    macros = [f'-DTORCH_TARGET_VERSION={ABI_TARGET}', f'-DMMEVM_CUDA_EMULATION="{HERE / "emulation.h"}"']
    libraries = [f'-L{path}' for path in library_paths()] + ['-ltorch', '-ltorch_cpu', '-lc10']
    torch.ops.load_library(_build('mmevm_emulated', sources, ['-O1', *FLAGS, *includes, *macros], libraries))
    autograd.register('mmevm_emulated')


def _extension_objects(sources: Sequence[Path]) -> list[Path]:
    """Return what the extension's build made of the sources; nothing unless all of it is there and up to date."""
    newest = max(path.stat().st_mtime for path in CORE.iterdir())
    for folder in ROOT.glob('build/temp.*/csrc/core'):
        objects = [folder / f'{source.stem}.o' for source in sources]
        if all(path.is_file() and path.stat().st_mtime > newest for path in objects):
            return objects
    return []


@functools.cache
def load_core_host() -> ctypes.CDLL:
    """Links csrc/core with core_host.cpp, without PyTorch's headers and libraries."""
    sources, host = sorted(CORE.glob('*.cpp')), HERE / 'core_host.cpp'
    objects = _extension_objects(sources)
    if objects:
        _run([CXX, *FLAGS, '-M', *sources])  # fails if a header is not found
    # With the extension's optimisation: what compilers fuse decides the last bit.
    flags, libraries = ['-O3', *FLAGS], ['-pthread', '-Wl,-z,defs']
    compiled = [host] if objects else [*sources, host]
    return ctypes.CDLL(str(_build('mmevm_core_host', compiled, flags, libraries, objects)))
