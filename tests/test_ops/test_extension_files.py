"""The extension's files as they were built, on any machine."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

import mmevm
from mmevm._cuda_toolkit import matching_cuda_toolkit
from mmevm.ops import extension

OPERATORS = ('selective_scan', '_selective_scan_backward', 'visual_scan', '_visual_scan_backward')

pytestmark = pytest.mark.usefixtures('extension')


def test_cuda_kernels_are_registered_where_they_can_be_compiled() -> None:
    try:
        matching_cuda_toolkit(torch.version.cuda)
    except RuntimeError as problem:
        pytest.skip(str(problem))
    assert extension.CUDA_LOAD_ERROR is None and 'cuda' in extension.DEVICES
    assert all(torch._C._dispatch_has_kernel_for_dispatch_key(f'mmevm::{name}', 'CUDA') for name in OPERATORS)
    assert extension.ARCHITECTURES


def test_extension_uses_the_stable_abi_alone() -> None:
    nm = shutil.which('nm')
    if nm is None:
        pytest.skip('binutils are not installed')
    files = sorted(Path(mmevm.__path__[0]).glob('_C*.so'))
    assert files
    for file in files:
        symbols = subprocess.run([nm, '-D', '--demangle', file], capture_output=True, text=True, check=True).stdout
        assert 'aoti_torch_' in symbols
        assert not [line for line in symbols.splitlines() if 'at::' in line or 'c10::' in line or ' Py' in line]


def test_extensions_need_no_newer_system_than_their_wheels_say() -> None:
    nm = shutil.which('nm')
    if nm is None:
        pytest.skip('binutils are not installed')
    newest = {'GLIBC': (2, 28), 'GLIBCXX': (3, 4, 24), 'CXXABI': (1, 3, 11)}  # of manylinux_2_28
    files = sorted(Path(mmevm.__path__[0]).glob('_*.abi3.so'))
    assert files
    for file in files:
        symbols = subprocess.run([nm, '-D', '--with-symbol-versions', file], capture_output=True, text=True, check=True)
        for name, version in re.findall(r'@(GLIBC|GLIBCXX|CXXABI)_([\d.]+)', symbols.stdout):
            assert tuple(map(int, version.split('.'))) <= newest[name], f'{file.name}: {name}_{version}'


def test_core_knows_no_host() -> None:
    core = Path(mmevm.__path__[0]).parent / 'csrc' / 'core'
    includes = [
        line for path in core.iterdir() for line in path.read_text().splitlines() if line.startswith('#include')
    ]
    assert includes and not [line for line in includes if 'torch' in line or 'ATen' in line or 'onnx' in line]
