"""Fixtures of the GPU tests."""

import os
from collections.abc import Iterator

import pytest
import torch

from .device import missing


@pytest.fixture(params=['compiled', 'triton'])
def backend(request: pytest.FixtureRequest) -> str:
    """Every backend but the reference; skips one that is not there, with the cause.

    MMEVM_REQUIRE_EXT=1 promises the compiled one: then its absence is a failure.
    """
    reason = missing(request.param)
    if reason is None:
        return request.param
    if request.param == 'compiled' and os.environ.get('MMEVM_REQUIRE_EXT') == '1':
        pytest.fail(f'MMEVM_REQUIRE_EXT=1, but {reason}')
    pytest.skip(reason)


@pytest.fixture
def full_precision() -> Iterator[None]:
    """Keeps cuDNN and cuBLAS from rounding float32 factors to TF32."""
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


@pytest.fixture
def deterministic() -> Iterator[None]:
    """Asks for deterministic algorithms; torch then fills fresh memory with NaN, too."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)
