"""Compares a backend with the reference in float64: outputs and, where required, every gradient."""

from collections.abc import Callable

import torch
from torch import Tensor

from mmevm.ops import Route, selective_scan, visual_scan

from .samples import TOLERANCE, relative_error, to_float64

Inputs = dict[str, Tensor]


def run_sequence(inputs: Inputs, backend: str, **kwargs: object) -> tuple[Tensor, Tensor]:
    """``selective_scan`` with softplus and with its last state."""
    options = {'delta_softplus': True, 'return_last_state': True, **kwargs}
    return selective_scan(**inputs, backend=backend, **options)


def compare_sequence(inputs: Inputs, backend: str, **kwargs: object) -> None:
    """Asserts that ``selective_scan`` agrees with the reference; the data's dtype decides how well."""
    exact_kwargs = {k: v.double() if isinstance(v, Tensor) else v for k, v in kwargs.items()}
    _compare(
        inputs,
        lambda tensors: run_sequence(tensors, backend, **kwargs),
        lambda tensors: run_sequence(tensors, 'reference', **exact_kwargs),
    )


def compare_map(inputs: Inputs, backend: str, routes: list[Route], step: int) -> None:
    """Asserts that ``visual_scan`` agrees with the reference."""
    _compare(
        inputs,
        lambda tensors: (visual_scan(**tensors, routes=routes, step=step, backend=backend),),
        lambda tensors: (visual_scan(**tensors, routes=routes, step=step, backend='reference'),),
    )


def _compare(inputs: Inputs, scan: Callable, reference: Callable) -> None:
    dtype = next(iter(inputs.values())).dtype
    exact = to_float64(inputs)
    got, expected = scan(inputs), reference(exact)
    assert got[0].dtype == dtype
    for i, (g, e) in enumerate(zip(got, expected, strict=True)):
        assert relative_error(g, e) < TOLERANCE[dtype], f'output {i}'
    wanted = [name for name, tensor in inputs.items() if tensor.requires_grad]
    if not wanted:
        return
    seeds = [torch.randn_like(e).to(g.dtype) for g, e in zip(got, expected, strict=True)]
    grads = torch.autograd.grad(got, [inputs[name] for name in wanted], seeds)
    exact_grads = torch.autograd.grad(expected, [exact[name] for name in wanted], [seed.double() for seed in seeds])
    for name, g, e in zip(wanted, grads, exact_grads, strict=True):
        assert g.dtype == inputs[name].dtype, name
        assert relative_error(g, e) < 4 * TOLERANCE[dtype], name
