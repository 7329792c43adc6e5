"""Fixtures of the GPU tests."""

import os
from collections.abc import Iterator

import pytest
import torch

from .device import missing


def pytest_configure(config: pytest.Config) -> None:
    """Make xdist's mark known where there is no xdist."""
    config.addinivalue_line('markers', 'xdist_group(name): tests that one process runs')


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option of a short rehearsal."""
    parser.addoption('--first-and-last', action='store_true', help='of each test in tests/gpu, run two cases alone')


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep the first and the last case of each test on request, which shows that the body runs; Triton's are skipped.

    The operators have tests for the CPU with as many cases in tests/test_ops.
    """
    if not config.getoption('--first-and-last', False):
        return
    cases: dict[str, list[pytest.Item]] = {}
    for item in items:
        if not hasattr(item, 'callspec') or item.callspec.params.get('backend') != 'triton':
            cases.setdefault(item.nodeid.partition('[')[0], []).append(item)
    kept = {id(item) for of_test in cases.values() for item in (of_test[0], of_test[-1])}
    config.hook.pytest_deselected(items=[item for item in items if id(item) not in kept])
    items[:] = [item for item in items if id(item) in kept]


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
