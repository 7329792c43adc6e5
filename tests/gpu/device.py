"""Where the GPU tests run: on CUDA, or, to rehearse the same test bodies where there is no GPU, on the CPU."""

import os

import pytest

from mmevm.ops import backends

DEVICE = os.environ.get('MMEVM_GPU_TEST_DEVICE', 'cuda')
"""'cuda', or 'cpu' for a rehearsal."""

REHEARSAL = DEVICE != 'cuda'

needs_cuda = pytest.mark.skipif(REHEARSAL, reason='rehearsal on the CPU, which has neither CUDA graphs nor streams')


def missing(name: str) -> str | None:
    """Why a backend does not serve the device, or None when it does."""
    states = [state for state in backends.status() if state.name == name and state.device == DEVICE]
    if not states:
        return f'there is no {name} backend for {DEVICE} tensors'
    return None if states[0].available else states[0].reason


def available() -> list[str]:
    """The backends, besides the reference, that serve the device."""
    return [name for name in backends.BACKENDS if name not in ('auto', 'reference') and missing(name) is None]
