"""Makes Triton's interpreter fast enough for tests."""

import functools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from triton.runtime import interpreter
from triton.runtime.interpreter import InterpretedFunction, ReduceOps, ScanOps

slow_scan, slow_reduce = ScanOps.generic_scan, ReduceOps.generic_reduce
patch_language = functools.cache(interpreter._patch_lang)


def call_function(self: InterpretedFunction, *args: Any, **kwargs: Any) -> Any:
    """``InterpretedFunction.__call__`` that patches Triton's language for a function once, instead of in every call.

    A launch undoes its own patches and makes them again; those for the functions that kernels call stay.
    """
    patch_language(self.fn)
    return self.rewrite()(*args, **kwargs)


def _results(self: ScanOps | ReduceOps, tensors: Sequence) -> Iterator[tuple[np.ndarray, ...]]:
    """Apply the operator to one slice along the axis after the other; yield what comes out after each.

    The operator is elementwise, as Triton demands, and plain arithmetic, so that it gives the same for whole slices in
    NumPy as for one number at a time. A tile takes a millisecond instead of a second.
    """
    running: tuple = ()
    for current in zip(*(np.moveaxis(tensor.handle.data, self.axis, 0) for tensor in tensors), strict=True):
        running = self.combine_fn.fn(*running, *current) if running else current
        running = running if isinstance(running, tuple) else (running,)
        yield running


def scan_slices(self: ScanOps, tensors: Sequence) -> list:
    """``ScanOps.generic_scan`` of slices."""
    found = (np.stack(results, self.axis) for results in zip(*_results(self, tensors), strict=True))
    return [self.to_tensor(data, tensor.type.element_ty) for data, tensor in zip(found, tensors, strict=True)]


def reduce_slices(self: ReduceOps, tensors: Sequence) -> list:
    """``ReduceOps.generic_reduce`` of slices along an axis."""
    *_, last = _results(self, tensors)
    found = (np.expand_dims(data, self.axis) if self.keep_dims else data for data in last)
    return [self.to_tensor(data, tensor.type.element_ty) for data, tensor in zip(found, tensors, strict=True)]
