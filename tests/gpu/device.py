"""Where the GPU tests run: on CUDA, or, to rehearse the same test bodies where there is no GPU, on the CPU."""

import os

import pytest
import torch

from mmevm.ops import backends

DEVICE = os.environ.get('MMEVM_GPU_TEST_DEVICE', 'cuda')
"""'cuda', or 'cpu' for a rehearsal."""

REHEARSAL = DEVICE != 'cuda'

needs_cuda = pytest.mark.skipif(REHEARSAL, reason='rehearsal on the CPU, which has neither CUDA graphs nor streams')


def missing(name: str) -> str | None:
    """Why a backend does not serve the device, or None when it does."""
    if REHEARSAL and name == 'triton':
        return "Triton's interpreter takes hours for these sizes; tests/test_ops runs it on small ones"
    try:
        backends.choose(name, torch.empty(0, device=DEVICE))
    except (AssertionError, RuntimeError) as error:  # the former from a torch without CUDA
        return str(error).splitlines()[0]
    return None


def available() -> list[str]:
    """The backends, besides the reference, that serve the device."""
    return [name for name in backends.BACKENDS if name not in ('auto', 'reference') and missing(name) is None]
