"""What all tests share: equal starting conditions, GPU tests only with a GPU, the compiled extension on request."""

import functools
import gc
import os
import random
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from . import durations

# Triton decides for good when it is first imported whether it runs kernels in its interpreter, and pytest loads this
# file before any other. Nothing else in this process compiles Triton kernels, and a process for each test would cost
# seconds. With a GPU the same tests run the compiled kernels on it.
if not torch.cuda.is_available():
    os.environ['TRITON_INTERPRET'] = '1'

GPU_TESTS = Path(__file__).parent / 'gpu'


def pytest_addoption(parser: pytest.Parser, pluginmanager: pytest.PytestPluginManager) -> None:
    """Add the hooks that measure tests and mark the slow ones; they have an option."""
    pluginmanager.register(durations)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skips tests marked `gpu` where torch sees no GPU, but for those of tests/gpu when they rehearse on the CPU."""
    if torch.cuda.is_available():
        return
    rehearsal = os.environ.get('MMEVM_GPU_TEST_DEVICE') == 'cpu'
    for item in items:
        if item.get_closest_marker('gpu') and not (rehearsal and GPU_TESTS in item.path.parents):
            item.add_marker(pytest.mark.skip(reason='torch sees no CUDA device'))


_frozen_modules = 0


@pytest.fixture(autouse=True)
def cheap_garbage_collection() -> None:
    """Exempt what imports left from collections, which MMEngine asks for with every dataset and take 0.3 seconds."""
    global _frozen_modules
    if len(sys.modules) > _frozen_modules + 100:
        gc.collect()
        gc.freeze()
        _frozen_modules = len(sys.modules)


@pytest.fixture(autouse=True)
def fixed_seeds() -> None:
    """Starts every test from the same random numbers, whichever tests run."""
    random.seed(0)
    np.random.seed(0)
    # torch.manual_seed also queues seeds for CUDA devices that nothing has used, which takes milliseconds a test.
    torch.default_generator.manual_seed(0)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(0)


@pytest.fixture(autouse=True)
def unchanged_globals() -> Iterator[None]:
    """Undoes what runs and fixtures leave for other tests."""
    from mmengine.logging import MMLogger
    from mmengine.registry import DefaultScope

    from .runs import forget_runs

    DefaultScope._instance_dict.clear()  # fixtures of a module or of all tests come before this one
    yield
    default = MMLogger._instance_dict.get('mmengine')  # which all tests share
    forget_runs()
    if default is not None:
        MMLogger._instance_dict['mmengine'] = default


@pytest.fixture(scope='session', autouse=True)
def fast_configs() -> Iterator[None]:
    """Saves half a second per config: MMEngine reads all metafiles for an `mmdet::` base, and formats its dumps."""
    from mmengine.config import config, utils
    from yapf.yapflib import yapf_api

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(utils, 'load', functools.cache(utils.load))
        for module in (yapf_api, config):  # some versions import it when a config is dumped
            patch.setattr(module, 'FormatCode', lambda text, **options: (text, False), raising=False)
        yield


def skip_without_extension(problem: str) -> None:
    """Skips for want of a compiled file, or fails where MMEVM_REQUIRE_EXT=1 promises that it is there."""
    if os.environ.get('MMEVM_REQUIRE_EXT') == '1':
        pytest.fail(f'MMEVM_REQUIRE_EXT=1, but {problem}')
    pytest.skip(problem)


@pytest.fixture(scope='session')
def extension() -> None:
    """Skips or fails without the compiled extension."""
    from mmevm.ops.extension import LOAD_ERROR

    if LOAD_ERROR is not None:
        skip_without_extension(LOAD_ERROR)
