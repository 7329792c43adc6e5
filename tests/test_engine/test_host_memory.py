"""Freed memory stays with the process."""

import ctypes
import os
import platform
import subprocess
import sys

import pytest

from mmevm.engine.runner import host_memory
from mmevm.engine.runner.host_memory import keep_freed_memory

# Page faults of the last of four steps, each of which frees all of its maps, before and after memory is kept. The
# module is run by its path, which spares the process the packages above it.
STEPS = """
import resource, runpy, sys
import torch

def count():
    for _ in range(4):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        maps = [torch.ones(2_000_000) for _ in range(8)] + [torch.ones(20_000_000)]
        del maps
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

returned = count()
assert runpy.run_path(sys.argv[1])['keep_freed_memory']()
print(returned, count())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != 'glibc', reason='only glibc can be told')
def test_a_step_gets_the_pages_of_the_one_before() -> None:
    """144 MB are 35,156 pages, or 69 of the large kind."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(('MALLOC_', 'GLIBC_'))}
    command = [sys.executable, '-c', STEPS, host_memory.__file__]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=own)
    returned, kept = map(int, done.stdout.split())
    assert kept < 10
    assert returned > 60


def test_other_c_libraries_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A library without mallopt is no reason to stop."""

    class Musl:
        """No such function."""

    monkeypatch.setattr(ctypes, 'CDLL', lambda _: Musl())
    assert keep_freed_memory() is False


def test_what_the_environment_says_is_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('MALLOC_TRIM_THRESHOLD_', '100000')
    assert keep_freed_memory() is False
