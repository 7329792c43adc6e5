"""The Triton kernels compile for GPUs, which the interpreter that runs them on the CPU does not show."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SHARED_MEMORY = 64 * 1024
"""Bytes that AMD's GPUs, and NVIDIA's from compute capability 7.5 on, have for a program."""


pytestmark = pytest.mark.skipif(importlib.util.find_spec('triton') is None, reason='triton is not installed')


def _run(target: str, folder: Path) -> list:
    """In a process of its own, since this one may have chosen Triton's interpreter."""
    environment = {k: v for k, v in os.environ.items() if k != 'TRITON_INTERPRET'} | {'TRITON_CACHE_DIR': str(folder)}
    command = [sys.executable, '-m', 'tests.test_ops.compile_kernels', *target.split()]
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return [json.loads(line) for line in result.stdout.splitlines()]


@pytest.mark.parametrize('target', ['cuda 80 32', 'hip gfx942 64'])
def test_kernels_compile(target: str, tmp_path: Path) -> None:
    kernels = _run(target, tmp_path)
    scan = ['scan_fwd_kernel', 'carry_kernel', 'scan_fwd_kernel', 'adjoint_kernel', 'carry_kernel', 'scan_bwd_kernel']
    assert [kernel['kernel'] for kernel in kernels] == 3 * scan
    assert max(kernel['shared'] for kernel in kernels) <= SHARED_MEMORY
    assert all(kernel['bytes'] > 0 for kernel in kernels)
    # Nothing in the last scan, of float64 data, may be computed in less.
    assert [i for i, kernel in enumerate(kernels) if not kernel['float32']] == list(range(12, 18))


def test_kernels_are_compiled_once_for_maps_of_any_size(tmp_path: Path) -> None:
    first, second, third = zip(*[iter(_run('cuda 80 32 record', tmp_path))] * 6, strict=True)
    assert first == second == third
