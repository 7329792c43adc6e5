"""Fake kernels and gradients of the operators, the same for every set of kernels."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from mmevm.ops import checks, reference
from mmevm.ops.checks import MapInputs, SequenceInputs
from mmevm.ops.flops import register_with_mmengine
from mmevm.ops.routes import unflatten
from mmevm.ops.transforms import in_transform

CHUNK = 32
"""Tokens between two saved states; ``kChunk`` in csrc/core/scan.h."""

Gradients = tuple[Tensor | None, ...]


def _chunks(length: int) -> int:
    return -(-length // CHUNK)


def must_be_differentiable() -> bool:
    """Whether gradients will be differentiated again (``create_graph=True``) or are computed under ``torch.func``."""
    return torch.is_grad_enabled() or in_transform()


def reference_gradients(
    formula: Callable[..., tuple[Tensor, ...]], inputs: Sequence[Tensor | None], grad_outputs: Sequence[Tensor | None]
) -> Gradients:
    """Gradients by the reference's formula: slow, but differentiable any number of times, unlike the kernels'."""
    present = [i for i, t in enumerate(inputs) if t is not None]

    def run(*tensors: Tensor) -> tuple[Tensor, ...]:
        given = dict(zip(present, tensors, strict=True))
        return formula(*(given.get(i) for i in range(len(inputs))))

    outputs, pull_back, *_ = torch.func.vjp(run, *(inputs[i] for i in present))
    seeds = (torch.zeros_like(o) if g is None else g for g, o in zip(grad_outputs, outputs, strict=True))
    grads = dict(zip(present, pull_back(tuple(seeds)), strict=True))
    return tuple(grads.get(i) for i in range(len(inputs)))


def _selective_scan_fake(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    *tensors, _, save_states = arguments
    inputs = SequenceInputs(*tensors)
    checks.check_selective_scan(inputs)
    u, A, Bs = inputs.u, inputs.A, inputs.Bs
    B, D, L = u.shape
    N, G = A.shape[1], Bs.shape[1]
    dtype = checks.accumulate_dtype(u)
    states = (B, G, _chunks(L), N, D // G) if save_states else (0,)
    return u.new_empty(B, D, L), u.new_empty(B, D, N, dtype=dtype), u.new_empty(states, dtype=dtype)


def _selective_scan_backward_fake(dy: Tensor, dlast_state: Tensor | None, *arguments: Any) -> tuple[Tensor, ...]:
    *tensors, _, _ = arguments
    u, delta, A, Bs, Cs, _, _ = SequenceInputs(*tensors)
    per_channel = A.new_empty(A.shape[0])
    empties = [t.new_empty(t.shape) for t in (u, delta, A, Bs, Cs)]
    return (*empties, per_channel, torch.empty_like(per_channel))


def _selective_scan_setup(ctx: Any, inputs: tuple, output: tuple) -> None:
    *tensors, ctx.delta_softplus, _ = inputs
    ctx.save_for_backward(*tensors, output[2])
    ctx.mark_non_differentiable(output[2])
    # Without this, the unused gradient of the states would be filled with zeros.
    ctx.set_materialize_grads(False)


def _selective_scan_backward(
    namespace: str, ctx: Any, dy: Tensor | None, dlast_state: Tensor | None, _: None
) -> Gradients:
    *tensors, states = ctx.saved_tensors
    if must_be_differentiable():
        scan = partial(reference.selective_scan, delta_softplus=ctx.delta_softplus)
        return (*needed(ctx, reference_gradients(scan, tensors, (dy, dlast_state))), None, None)
    operators = getattr(torch.ops, namespace)
    if dy is None:
        dy = torch.zeros_like(tensors[0])
    if not states.numel():
        _, _, states = operators.selective_scan(*tensors, ctx.delta_softplus, True)
    grads = operators._selective_scan_backward(dy, dlast_state, *tensors, states, ctx.delta_softplus)
    return (*needed(ctx, grads), None, None)


def _visual_scan_fake(*arguments: Any) -> tuple[Tensor, Tensor]:
    *tensors, step, routes, save_states = arguments
    inputs = MapInputs(*tensors)
    checks.check_visual_scan(inputs)
    x, A = inputs.x, inputs.A
    B, H, W, D = x.shape
    tokens = -(-H // step) * -(-W // step)
    states = (B, len(routes) // 6, _chunks(tokens), A.shape[2], D) if save_states else (0,)
    return x.new_empty(x.shape), x.new_empty(states, dtype=checks.accumulate_dtype(x))


def _visual_scan_backward_fake(dy: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
    *tensors, _, _, _ = arguments
    x, x_dbl, dt_weight, _, A, _ = MapInputs(*tensors)
    dx, dx_dbl, ddt_weight, dA = (t.new_empty(t.shape) for t in (x, x_dbl, dt_weight, A))
    per_channel = A.new_empty(A.shape[:2])
    return dx, dx_dbl, ddt_weight, per_channel, dA, torch.empty_like(per_channel)


def _visual_scan_setup(ctx: Any, inputs: tuple, output: tuple) -> None:
    *tensors, ctx.step, ctx.routes, _ = inputs
    ctx.save_for_backward(*tensors, output[1])
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)


def _visual_scan_backward(namespace: str, ctx: Any, dy: Tensor | None, _: None) -> Gradients:
    *tensors, states = ctx.saved_tensors
    if must_be_differentiable():

        def scan(*inputs: Any) -> tuple[Tensor]:
            return (reference.visual_scan(*inputs, ctx.step, unflatten(ctx.routes)),)  # type: ignore[call-arg,arg-type]

        return (*needed(ctx, reference_gradients(scan, tensors, (dy,))), None, None, None)
    operators = getattr(torch.ops, namespace)
    if dy is None:
        dy = torch.zeros_like(tensors[0])
    if not states.numel():
        _, states = operators.visual_scan(*tensors, ctx.step, ctx.routes, True)
    grads = operators._visual_scan_backward(dy, *tensors, states, ctx.step, ctx.routes)
    return (*needed(ctx, grads), None, None, None)


def needed(ctx: Any, grads: Gradients) -> Gradients:
    """Drops the gradients that nobody asked for, those of absent inputs among them."""
    return tuple(grad if needed else None for grad, needed in zip(grads, ctx.needs_input_grad, strict=False))


def register(namespace: str) -> None:
    """Gives the operators of a namespace their fake kernels, their gradients and their cost.

    Args:
        namespace (str): As in ``torch.ops``; its operators have the schemas of schemas.inc.
    """
    fakes: dict[str, Callable[..., Any]] = {
        'selective_scan': _selective_scan_fake,
        '_selective_scan_backward': _selective_scan_backward_fake,
        'visual_scan': _visual_scan_fake,
        '_visual_scan_backward': _visual_scan_backward_fake,
    }
    for name, fake in fakes.items():
        torch.library.register_fake(f'{namespace}::{name}', fake)
    for name, backward, setup in (
        ('selective_scan', _selective_scan_backward, _selective_scan_setup),
        ('visual_scan', _visual_scan_backward, _visual_scan_setup),
    ):
        torch.library.register_autograd(f'{namespace}::{name}', partial(backward, namespace), setup_context=setup)
    register_with_mmengine(namespace)
