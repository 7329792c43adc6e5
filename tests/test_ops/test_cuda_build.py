"""The CUDA kernels as they were built, on any machine."""

import pytest
import torch

from mmevm._cuda_toolkit import matching_cuda_toolkit
from mmevm.ops.extension import DEVICES

OPERATORS = ('selective_scan', '_selective_scan_backward', 'visual_scan', '_visual_scan_backward')


@pytest.mark.usefixtures('extension')
def test_cuda_kernels_are_registered_where_they_can_be_compiled() -> None:
    try:
        matching_cuda_toolkit(torch.version.cuda)
    except RuntimeError as problem:
        pytest.skip(str(problem))
    assert 'cuda' in DEVICES
    assert all(torch._C._dispatch_has_kernel_for_dispatch_key(f'mmevm::{name}', 'CUDA') for name in OPERATORS)
