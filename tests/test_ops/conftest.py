"""Runs Triton's kernels in its interpreter where there is no GPU."""

import os
from collections.abc import Iterator

import pytest


@pytest.fixture(scope='session')
def triton_backend() -> Iterator[None]:
    """Skips without Triton, or fails where MMEVM_REQUIRE_EXT=1 promises every backend; makes its interpreter faster."""
    from mmevm.ops.backends import triton_import_error

    error = triton_import_error()
    if error is not None:
        (pytest.fail if os.environ.get('MMEVM_REQUIRE_EXT') == '1' else pytest.skip)(error)
    from triton import language
    from triton.runtime.interpreter import InterpretedFunction

    from . import interpreter

    interpreted = os.environ.get('TRITON_INTERPRET') == '1'
    if isinstance(language.sum, InterpretedFunction) != interpreted:
        pytest.fail('something imported Triton before tests/conftest.py set TRITON_INTERPRET')
    with pytest.MonkeyPatch.context() as patch:
        if interpreted:
            patch.setattr(interpreter.ScanOps, 'generic_scan', interpreter.scan_slices)
            patch.setattr(interpreter.ReduceOps, 'generic_reduce', interpreter.reduce_slices)
            patch.setattr(InterpretedFunction, '__call__', interpreter.call_function)
        yield
