"""Freed memory stays with the process."""

import ctypes
import subprocess
import sys

import pytest

from mmevm.engine.runner.host_memory import keep_freed_memory

# Page faults of the second of two steps, each of which frees all of its maps.
STEPS = """
import resource, sys
import torch
from mmevm.engine.runner.host_memory import keep_freed_memory

if sys.argv[1] == 'keep':
    assert keep_freed_memory()
for _ in range(4):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    maps = [torch.ones(2_000_000) for _ in range(8)]
    del maps
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), 'mallopt'), reason='the C library has no mallopt')
def test_second_step_gets_the_pages_of_the_first() -> None:
    """64 MB are 15,625 pages, or 31 of the large kind."""
    faults = {}
    for mode in ('keep', 'return'):
        done = subprocess.run([sys.executable, '-c', STEPS, mode], capture_output=True, text=True, check=True)
        faults[mode] = int(done.stdout)
    assert faults['keep'] < 10
    assert faults['return'] > 30


def test_other_c_libraries_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A library without mallopt is no reason to stop."""

    class Musl:
        """No such function."""

    monkeypatch.setattr(ctypes, 'CDLL', lambda _: Musl())
    assert keep_freed_memory() is False
