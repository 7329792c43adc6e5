"""One operator on the device against the float64 reference on the CPU: the output and every gradient."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from mmevm.ops import Route, selective_scan, visual_scan

from ..test_ops.samples import TOLERANCE, relative_error, to_float64
from .device import DEVICE

Inputs = dict[str, Tensor]
Scan = Callable[[Inputs, str], tuple[Tensor, ...]]
"""Named inputs and a backend's name -> outputs."""

Seeds = Callable[[tuple[Tensor, ...]], Sequence[Tensor]]
"""Outputs -> their gradients."""

Results = dict[str, Tensor]
"""Outputs as ``out0``, ``out1``, …, gradients as ``d<input>``."""


def sequence_scan(inputs: Inputs, backend: str) -> tuple[Tensor, ...]:
    """``selective_scan`` with its last state."""
    return selective_scan(**inputs, delta_softplus=True, return_last_state=True, backend=backend)


def map_scan(routes: list[Route], step: int) -> Scan:
    """``visual_scan`` along routes."""
    return lambda inputs, backend: (visual_scan(**inputs, routes=routes, step=step, backend=backend),)


def on_device(inputs: Inputs) -> Inputs:
    """Leaves on the device that require the same gradients, with the same strides."""
    return {k: v.detach().to(DEVICE).requires_grad_(v.requires_grad) for k, v in inputs.items()}


def output_gradients(outputs: tuple[Tensor, ...], scale: float = 1.0) -> list[Tensor]:
    """Random gradients of outputs, the same in every call."""
    gen = torch.Generator().manual_seed(1)
    # Rounded to half precision, so that every dtype gets exactly the same gradients.
    seeds = [scale * torch.randn(y.shape, generator=gen).half() for y in outputs]
    return [seed.to(y.device, y.dtype) for seed, y in zip(seeds, outputs, strict=True)]


def results(scan: Scan, inputs: Inputs, backend: str, seeds: Seeds = output_gradients) -> Results:
    """Outputs, and the gradients of the inputs that require them.

    Args:
        scan (Scan): The operator.
        inputs (Inputs): Where it runs.
        backend (str): Its backend.
        seeds (Seeds): Makes the gradients of the outputs.
    """
    outputs = scan(inputs, backend)
    found = {f'out{i}': y.detach() for i, y in enumerate(outputs)}
    wanted = [name for name, tensor in inputs.items() if tensor.requires_grad]
    if wanted:
        grads = torch.autograd.grad(outputs, [inputs[name] for name in wanted], seeds(outputs))
        found |= {f'd{name}': grad for name, grad in zip(wanted, grads, strict=True)}
    return found


def check(scan: Scan, inputs: Inputs, backend: str, seeds: Seeds = output_gradients) -> Results:
    """Asserts that a backend on the device equals the float64 reference; returns what it gave.

    The reference runs on the CPU, where its many small steps cost least.
    """
    got = results(scan, on_device(inputs), backend, seeds)
    expected = results(scan, to_float64(inputs), 'reference', seeds)
    assert_close(got, expected, next(iter(inputs.values())).dtype)
    return got


def assert_close(got: Results, expected: Results, dtype: torch.dtype) -> None:
    """Asserts that results agree within the tolerance for data of a dtype."""
    assert got.keys() == expected.keys()
    for name, value in got.items():
        tolerance = TOLERANCE[dtype] if name.startswith('out') else 4 * TOLERANCE[dtype]
        assert value.isfinite().all(), name
        assert relative_error(value.cpu(), expected[name].cpu()) < tolerance, name
