"""Compiles csrc/cuda for the CPU, with emulation.h in the place of the CUDA runtime."""

import functools
import hashlib
import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from torch.utils.cpp_extension import include_paths, library_paths

from mmevm.ops import autograd

ROOT = Path(__file__).resolve().parents[2]
CUDA = ROOT / 'csrc' / 'cuda'
LIBRARY = 'libmmevm_emulated.so'
TARGET = '-DTORCH_TARGET_VERSION=0x020a000000000000'
SCHEMAS = ROOT / 'mmevm' / 'ops' / 'schemas.inc'


def _sources() -> list[Path]:
    launchers = [path for path in CUDA.glob('*.cpp') if path.name != 'register.cpp']
    checks = ROOT / 'csrc' / 'core' / 'checks.cpp'
    return [*sorted(CUDA.glob('*.cu')), *sorted(launchers), checks, Path(__file__).with_name('emulation.cpp')]


def _folder() -> Path:
    """Where the library of this source, this torch and this compiler belongs."""
    headers = [*ROOT.glob('csrc/*/*.*h'), SCHEMAS, *Path(__file__).parent.iterdir()]
    total = hashlib.sha256(torch.__version__.encode())
    for path in sorted([*_sources(), *(header for header in headers if header.is_file())]):
        total.update(path.read_bytes())
    return ROOT / 'build' / 'emulation' / total.hexdigest()[:16]


def _run(command: list[object]) -> None:
    result = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    if result.returncode:
        raise RuntimeError(f'{" ".join(map(str, command))}\n{result.stderr}')


def _compile(source: Path, folder: Path) -> Path:
    target = folder / f'{source.name}.o'
    header = Path(__file__).with_name('emulation.h')
    flags = [
        '-std=c++17',
        '-O1',
        '-fPIC',
        '-Wall',
        '-Wno-unknown-pragmas',
        TARGET,
        f'-DMMEVM_CUDA_EMULATION="{header}"',
    ]
    includes = [f'-I{path}' for path in [ROOT / 'csrc', SCHEMAS.parent, *include_paths()]]
    _run([os.environ.get('CXX', 'g++'), *flags, *includes, '-x', 'c++', '-c', source, '-o', target])
    return target


@functools.cache
def load_emulation() -> None:
    """Compiles the library if it is not there (a minute on two cores), and registers ``torch.ops.mmevm_emulated``."""
    folder = _folder()
    library = folder / LIBRARY
    if not library.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
            objects = list(pool.map(_compile, _sources(), [folder] * len(_sources())))
        draft = folder / f'{LIBRARY}.{os.getpid()}'
        libraries = [f'-L{path}' for path in library_paths()] + ['-ltorch', '-ltorch_cpu', '-lc10']
        _run([os.environ.get('CXX', 'g++'), '-shared', '-o', draft, *objects, *libraries])
        draft.replace(library)
    torch.ops.load_library(library)
    autograd.register('mmevm_emulated')
