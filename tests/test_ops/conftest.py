"""Operator tests need the compiled extension."""

import os

import pytest

from mmevm.ops import extension as ext


@pytest.fixture(scope='session')
def extension() -> None:
    """Skips without the extension, or fails where MMEVM_REQUIRE_EXT=1 promises that it is there."""
    if ext.LOAD_ERROR is None:
        return
    if os.environ.get('MMEVM_REQUIRE_EXT') == '1':
        pytest.fail(f'MMEVM_REQUIRE_EXT=1, but {ext.LOAD_ERROR}')
    pytest.skip(ext.LOAD_ERROR)
