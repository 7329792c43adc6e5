"""Fused passes over channels-last maps with gradients, for training on the CPU: as :mod:`mmevm.ops.passes`.

Each operator has a formula in plain PyTorch, which defines it and gives its second derivatives. What its gradients need
of the forward pass is computed again from the inputs, so that autograd keeps only these, and of a scan its projection
and states. Whoever calls one of the functions asks :func:`available` first.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmevm.ops import extension, reference
from mmevm.ops.autograd import must_be_differentiable, needed, reference_gradients
from mmevm.ops.backends import operators
from mmevm.ops.routes import es2d_routes, flatten
from mmevm.ops.transforms import only_pytorch_serves

# The order of csrc/core/passes.h.
ACTIVATIONS: dict[str | None, Callable[[Tensor], Tensor]] = {
    None: lambda x: x,
    'relu': F.relu,
    'silu': F.silu,
    'gelu': F.gelu,
}
"""Activations by name."""

ACTIVATION_INDEX = {name: i for i, name in enumerate(ACTIVATIONS)}
"""The operators' names for them."""

_BY_INDEX = list(ACTIVATIONS.values())

Outputs = tuple[Tensor, ...]
Formula = Callable[..., Outputs]


def available(*tensors: Tensor | None) -> bool:
    """Return whether the operators serve these maps and parameters.

    They serve contiguous float32 tensors on the CPU of which one needs a gradient, outside of autocast, tracing,
    exporting and ``torch.func``.
    """
    if not torch.is_grad_enabled() or extension.LOAD_ERROR is not None or torch.is_autocast_enabled('cpu'):
        return False
    if only_pytorch_serves(*tensors):  # before anything is asked that a tracer would record
        return False
    present = [t for t in tensors if t is not None]
    return any(t.requires_grad for t in present) and all(_is_served(t) for t in present)


def _is_served(t: Tensor) -> bool:
    plain = type(t) in (Tensor, nn.Parameter)
    return plain and t.dtype == torch.float32 and t.device.type == 'cpu' and t.is_contiguous() and t.numel() > 0


def _kernels() -> Any:
    return operators('compiled')


def depthwise_activation(x: Tensor, weight: Tensor, bias: Tensor | None, activation: str | None) -> Tensor:
    """Depthwise 3 x 3 convolution within a border of zeros, and its activation.

    Args:
        x (Tensor[B, H, W, C]): Map.
        weight (Tensor[C, 1, 3, 3]): Kernels.
        bias (Tensor[C], optional): Bias.
        activation (str, optional): 'relu', 'silu' or 'gelu'.

    Returns:
        Tensor[B, H, W, C].
    """
    return _kernels().depthwise_activation(x, weight, bias, ACTIVATION_INDEX[activation])


def norm_serves(norm: nn.Module, x: Tensor) -> bool:
    """Return whether :func:`batch_norm` serves a norm: PyTorch's own, in training mode, affine, of several values."""
    return (
        type(norm) is nn.BatchNorm2d
        and norm.training
        and norm.momentum is not None
        and x.numel() > x.shape[-1]
        and norm.affine
        and available(x, norm.weight, norm.bias, norm.running_mean, norm.running_var)
    )


def batch_norm(x: Tensor, norm: nn.BatchNorm2d, activation: str | None = None) -> Tensor:
    """Return ``activation(norm(x))`` by the statistics of the batch, and update the norm's own.

    Args:
        x (Tensor[B, H, W, C]): Map.
        norm (nn.BatchNorm2d): As :func:`norm_serves` says.
        activation (str, optional): 'relu', 'silu' or 'gelu'.

    Returns:
        Tensor[B, H, W, C].
    """
    operator, index = _kernels().batch_norm_activation, ACTIVATION_INDEX[activation]
    y, mean, var = operator(x, norm.weight, norm.bias, norm.eps, index)
    with torch.no_grad():
        if norm.num_batches_tracked is not None:
            norm.num_batches_tracked.add_(1)
        if norm.running_mean is not None and norm.running_var is not None and norm.momentum is not None:
            count = x.numel() // x.shape[-1]
            norm.running_mean.lerp_(mean, norm.momentum)
            norm.running_var.lerp_(var * (count / (count - 1)), norm.momentum)
    return y


def norm_gate(x: Tensor, gate: Tensor, norm: nn.LayerNorm) -> Tensor:
    """Return ``norm(x) * silu(gate)``. Args: x, gate (Tensor[B, H, W, C]). Returns: Tensor[B, H, W, C]."""
    return _kernels().norm_gate(x, gate, norm.weight, norm.bias, norm.eps)


def norm_mean(x: Tensor, norm: nn.LayerNorm) -> Tensor:
    """Return the mean of ``norm(x)`` over each image. Args: x (Tensor[B, H, W, C]). Returns: Tensor[B, 1, 1, C]."""
    return _kernels().norm_average(x, norm.weight, norm.bias, norm.eps)


def blend(
    x: Tensor | None, a: Tensor, scale_a: Tensor, b: Tensor | None = None, scale_b: Tensor | None = None
) -> Tensor:
    """Return ``x + a * scale_a + b * scale_b``; what is None is left out.

    Args:
        x, a, b (Tensor[B, H, W, C]): Maps.
        scale_a, scale_b (Tensor[B, 1, 1, C]): Scales of their channels.

    Returns:
        Tensor[B, H, W, C].
    """
    return _kernels().blend(x, a, scale_a, b, scale_b)


def project_phases(x: Tensor, weight: Tensor, step: int) -> Tensor:
    """Project every cell of a map by the parameter set of its phase, as :func:`mmevm.ops.es2d_scan` scans it.

    Args:
        x (Tensor[B, H, W, D]): Map.
        weight (Tensor[4, M, D]): One projection per parameter set.
        step (int): Distance between neighbouring cells of a phase.

    Returns:
        Tensor[B, H, W, M].
    """
    return _kernels().phase_projection(x, weight, step, _sets_of_phases(step))


def _sets_of_phases(step: int) -> list[int]:
    """Return the parameter sets of the phases in the order of their rows, then of their columns."""
    sets = {(route.row, route.col): route.parameters for route in es2d_routes(step)}
    return [sets[phase] for phase in sorted(sets)]


def convolve_and_scan(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    x_proj: Tensor,
    dt_weight: Tensor,
    A: Tensor,
    Ds: Tensor,
    dt_bias: Tensor,
    step: int,
) -> Tensor:
    """Depthwise 3 x 3 convolution, SiLU, projection and atrous scan; the gradients compute the convolved map again.

    Args:
        x (Tensor[B, H, W, D]): Map.
        weight (Tensor[D, 1, 3, 3]), bias (Tensor[D], optional): The convolution.
        x_proj (Tensor[4, R + 2N, D]): See :func:`project_phases`.
        dt_weight, dt_bias, A, Ds (Tensor): See :func:`mmevm.ops.es2d_scan`.
        step (int): Distance between neighbouring cells of a phase.

    Returns:
        Tensor[B, H, W, D].
    """
    return _ConvolvedScan.apply(x, weight, bias, x_proj, dt_weight, dt_bias, A, Ds, step)


class _ConvolvedScan(torch.autograd.Function):
    """:func:`convolve_and_scan`: the backward pass computes the convolved map a second time."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, x_proj: Tensor, *rest: Any) -> Tensor:
        dt_weight, dt_bias, A, Ds, ctx.step = rest
        y = depthwise_activation(x, weight, bias, 'silu')
        x_dbl = project_phases(y, x_proj, ctx.step).unsqueeze(-2)
        routes = flatten(es2d_routes(ctx.step))
        scan = _kernels().visual_scan
        scanned, states = scan(y, x_dbl, dt_weight, dt_bias, A, Ds, ctx.step, routes, True)
        ctx.save_for_backward(x, weight, bias, x_proj, *rest[:-1], x_dbl, states)
        return scanned

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        *inputs, x_dbl, states = ctx.saved_tensors
        if must_be_differentiable():
            formula = partial(_convolved_scan_formula, step=ctx.step)
            return (*needed(ctx, reference_gradients(formula, inputs, (dy,))), None)
        x, weight, bias, x_proj, dt_weight, dt_bias, A, Ds = inputs
        step, routes, kernels = ctx.step, flatten(es2d_routes(ctx.step)), _kernels()
        y = depthwise_activation(x, weight, bias, 'silu')
        of_scan = (y, x_dbl, dt_weight, dt_bias, A, Ds, states, step, routes)
        dscanned, dx_dbl, *of_parameters = kernels._visual_scan_backward(dy.contiguous(), *of_scan)
        dprojected, dx_proj = kernels._phase_projection_backward(
            dx_dbl.squeeze(-2), y, x_proj, step, _sets_of_phases(step)
        )
        silu = ACTIVATION_INDEX['silu']
        of_conv = kernels._depthwise_activation_backward(dscanned.add_(dprojected), x, weight, bias, silu)
        return (*needed(ctx, (*of_conv, dx_proj, *of_parameters)), None)


# The operators' formulas, with the operators' arguments.
def _depthwise_formula(x: Tensor, weight: Tensor, bias: Tensor | None, activation: int) -> Outputs:
    y = F.conv2d(x.permute(0, 3, 1, 2), weight, bias, padding=1, groups=weight.shape[0])
    return (_BY_INDEX[activation](y.permute(0, 2, 3, 1)),)


def _batch_norm_formula(x: Tensor, weight: Tensor, bias: Tensor, eps: float, activation: int) -> Outputs:
    var, mean = torch.var_mean(x, dim=(0, 1, 2), correction=0)
    return _BY_INDEX[activation]((x - mean) * torch.rsqrt(var + eps) * weight + bias), mean, var


def _norm_gate_formula(x: Tensor, gate: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Outputs:
    return (F.layer_norm(x, weight.shape, weight, bias, eps) * F.silu(gate),)


def _norm_average_formula(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Outputs:
    return (F.layer_norm(x, weight.shape, weight, bias, eps).mean(dim=(1, 2), keepdim=True),)


def _blend_formula(x: Tensor | None, a: Tensor, scale_a: Tensor, b: Tensor | None, scale_b: Tensor | None) -> Outputs:
    y = a * scale_a if x is None else torch.addcmul(x, a, scale_a)
    return (y if b is None or scale_b is None else torch.addcmul(y, b, scale_b),)


def _phase_projection_formula(x: Tensor, weight: Tensor, step: int, sets: list[int]) -> Outputs:
    H, W = x.shape[1:3]
    phases = torch.arange(H)[:, None] % step * step + torch.arange(W) % step
    return (torch.einsum('bhwd,hwmd->bhwm', x, weight[torch.tensor(sets)[phases]]),)


def _convolved_scan_formula(
    x: Tensor, weight: Tensor, bias: Tensor | None, x_proj: Tensor, *parameters: Tensor, step: int
) -> Outputs:
    (y,) = _depthwise_formula(x, weight, bias, ACTIVATION_INDEX['silu'])
    (x_dbl,) = _phase_projection_formula(y, x_proj, step, _sets_of_phases(step))
    dt_weight, dt_bias, A, Ds = parameters
    return (reference.visual_scan(y, x_dbl.unsqueeze(-2), dt_weight, dt_bias, A, Ds, step, es2d_routes(step)),)


def _blend_backward(dy: Tensor, x: Tensor | None, *scaled: Tensor | None) -> tuple[Tensor, ...]:
    return (dy, *torch.ops.mmevm._blend_backward(dy, *scaled))


FORMULAS: dict[str, tuple[Formula, int]] = {
    'depthwise_activation': (_depthwise_formula, 3),
    'batch_norm_activation': (_batch_norm_formula, 3),
    'norm_gate': (_norm_gate_formula, 4),
    'norm_average': (_norm_average_formula, 3),
    'blend': (_blend_formula, 5),
    'phase_projection': (_phase_projection_formula, 2),
}
"""The operators' formulas by name, and how many of their arguments are tensors."""


def _setup(n_tensors: int, ctx: Any, inputs: tuple, output: Any) -> None:
    extra = output[1:] if isinstance(output, tuple) else ()
    ctx.save_for_backward(*inputs[:n_tensors], *extra)
    ctx.constants = inputs[n_tensors:]
    ctx.mark_non_differentiable(*extra)
    ctx.set_materialize_grads(False)


def _backward(name: str, ctx: Any, dy: Tensor | None, *_: None) -> tuple[Tensor | None, ...]:
    formula, n_tensors = FORMULAS[name]
    saved, constants = ctx.saved_tensors, ctx.constants
    nothing = (None,) * len(constants)
    if dy is None:
        return (*(None,) * n_tensors, *nothing)
    if must_be_differentiable():
        # The statistics of a batch, which are the further outputs, have no gradients of their own.
        grads = reference_gradients(lambda *t: formula(*t, *constants)[:1], saved[:n_tensors], (dy,))
    else:
        operator = _blend_backward if name == 'blend' else getattr(torch.ops.mmevm, f'_{name}_backward')
        grads = operator(dy.contiguous(), *saved, *constants)
    return (*needed(ctx, grads), *nothing)


def _like(t: Tensor) -> Tensor:
    return torch.empty_like(t, memory_format=torch.contiguous_format)


def _register() -> None:
    def of_inputs(like: Tensor, *tensors: Tensor | None) -> tuple[Tensor, ...]:
        return tuple(like.new_empty(0) if t is None else _like(t) for t in tensors)

    fakes: dict[str, Callable[..., Any]] = {
        'depthwise_activation': lambda x, *_: _like(x),
        '_depthwise_activation_backward': lambda dy, x, weight, bias, _: of_inputs(dy, x, weight, bias),
        'batch_norm_activation': lambda x, weight, bias, *_: of_inputs(x, x, weight, bias),
        '_batch_norm_activation_backward': lambda dy, x, weight, bias, *_: of_inputs(dy, x, weight, bias),
        'norm_gate': lambda x, *_: _like(x),
        '_norm_gate_backward': lambda dy, x, gate, weight, bias, _: of_inputs(dy, x, gate, weight, bias),
        'norm_average': lambda x, *_: x.new_empty(x.shape[0], 1, 1, x.shape[3]),
        '_norm_average_backward': lambda dy, x, weight, bias, _: of_inputs(dy, x, weight, bias),
        'blend': lambda x, a, *_: _like(a),
        '_blend_backward': lambda dy, *tensors: of_inputs(dy, *tensors),
        'phase_projection': lambda x, weight, *_: x.new_empty(*x.shape[:3], weight.shape[1]),
        '_phase_projection_backward': lambda dy, x, weight, *_: of_inputs(dy, x, weight),
    }
    for name, fake in fakes.items():
        torch.library.register_fake(f'mmevm::{name}', fake)
    for name, (_, n_tensors) in FORMULAS.items():
        torch.library.register_autograd(
            f'mmevm::{name}', partial(_backward, name), setup_context=partial(_setup, n_tensors)
        )


if extension.LOAD_ERROR is None:
    _register()
