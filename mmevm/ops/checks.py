"""The operators' inputs and their checks, shared by every backend and by the fake kernels.

``csrc/core/checks.cpp`` says the same.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from mmevm.ops.routes import Route, check_step

MAX_STATES = 256
_OPTIONAL = ('Ds', 'dt_bias', 'delta_bias')


class SequenceInputs(NamedTuple):
    """The tensors of :func:`mmevm.ops.selective_scan`, in the order of the operator's arguments."""

    u: Tensor
    delta: Tensor
    A: Tensor
    Bs: Tensor
    Cs: Tensor
    Ds: Tensor | None
    delta_bias: Tensor | None


class MapInputs(NamedTuple):
    """The tensors of :func:`mmevm.ops.visual_scan`, in the order of the operator's arguments."""

    x: Tensor
    x_dbl: Tensor
    dt_weight: Tensor
    dt_bias: Tensor | None
    A: Tensor
    Ds: Tensor | None


def contiguous(inputs: tuple[Tensor | None, ...]) -> Any:
    """The inputs as contiguous tensors."""
    return (None if t is None else t.contiguous() for t in inputs)


def _tensors(inputs: SequenceInputs | MapInputs) -> None:
    """Raise TypeError unless the inputs are tensors, or None where a default says so."""
    for name, tensor in zip(inputs._fields, inputs, strict=True):
        if tensor is not None or name not in _OPTIONAL:
            check_tensor(tensor, name)


def check_tensor(value: Any, name: str) -> None:
    """Raises TypeError unless an input is a tensor."""
    if not isinstance(value, Tensor):
        raise TypeError(f'`{name}` must be a tensor, got {type(value).__name__}; convert it with torch.as_tensor')


def _shape(tensor: Tensor, name: str, dims: str, expected: tuple[int, ...]) -> None:
    if tuple(tensor.shape) != tuple(expected):
        raise ValueError(f'`{name}` must have shape {dims} = {list(expected)}, got {list(tensor.shape)}')


def _ndim(tensor: Tensor, name: str, dims: str) -> None:
    if tensor.dim() != dims.count(',') + 1:
        raise ValueError(f'`{name}` must have shape {dims}, got {list(tensor.shape)}')


def accumulate_dtype(first: Tensor) -> torch.dtype:
    """The dtype of states and sums: float64 for float64 data, else float32."""
    return torch.float64 if first.dtype == torch.float64 else torch.float32


def _data(tensor: Tensor, name: str, first: Tensor) -> None:
    if not tensor.is_floating_point():
        raise TypeError(f'`{name}` must be float16, bfloat16, float32 or float64, got {tensor.dtype}')
    if tensor.device != first.device:
        raise ValueError(f'`{name}` must be on {first.device} like the first input, got {tensor.device}')


def _parameter(tensor: Tensor | None, name: str, first: Tensor) -> None:
    if tensor is None:
        return
    dtype = accumulate_dtype(first)
    if tensor.dtype != dtype:
        remedy = 'complex state matrices are not supported' if tensor.is_complex() else f'convert it with .to({dtype})'
        raise TypeError(f'`{name}` must be {dtype} for {first.dtype} data, got {tensor.dtype}; {remedy}')
    if tensor.device != first.device:
        raise ValueError(f'`{name}` must be on {first.device} like the first input, got {tensor.device}')


def _states(A: Tensor) -> None:
    if not 1 <= A.shape[-1] <= MAX_STATES:
        raise ValueError(f'`A` must have 1 to {MAX_STATES} states, got {A.shape[-1]}')


def check_selective_scan(inputs: SequenceInputs) -> None:
    """Raises ValueError or TypeError unless the tensors fit :func:`mmevm.ops.selective_scan`."""
    _tensors(inputs)
    u, delta, A, Bs, Cs, Ds, delta_bias = inputs
    _ndim(u, 'u', '[B, D, L]')
    _ndim(A, 'A', '[D, N]')
    _ndim(Bs, 'Bs', '[B, G, N, L]')
    B, D, L = u.shape
    N, G = A.shape[1], Bs.shape[1]
    if D == 0 or L == 0:
        raise ValueError(f'`u` must have at least one channel and one token, got shape {list(u.shape)}')
    _states(A)
    if G == 0 or D % G:
        raise ValueError(f'`Bs` must have a number of groups that divides D = {D}, got {G}')
    _shape(delta, 'delta', '[B, D, L]', (B, D, L))
    _shape(A, 'A', '[D, N]', (D, N))
    _shape(Bs, 'Bs', '[B, G, N, L]', (B, G, N, L))
    _shape(Cs, 'Cs', '[B, G, N, L]', (B, G, N, L))
    for name, parameter in (('Ds', Ds), ('delta_bias', delta_bias)):
        if parameter is not None:
            _shape(parameter, name, '[D]', (D,))
    for name, tensor in (('u', u), ('delta', delta), ('Bs', Bs), ('Cs', Cs)):
        _data(tensor, name, u)
    for name, parameter in (('A', A), ('Ds', Ds), ('delta_bias', delta_bias)):
        _parameter(parameter, name, u)


def check_visual_scan(inputs: MapInputs) -> None:
    """Raises ValueError or TypeError unless the tensors fit :func:`mmevm.ops.visual_scan`."""
    _tensors(inputs)
    x, x_dbl, dt_weight, dt_bias, A, Ds = inputs
    _ndim(x, 'x', '[B, H, W, D]')
    _ndim(x_dbl, 'x_dbl', '[B, H, W, P, R + 2N]')
    _ndim(dt_weight, 'dt_weight', '[K, D, R]')
    _ndim(A, 'A', '[K, D, N]')
    B, H, W, D = x.shape
    K, _, R = dt_weight.shape
    N = A.shape[2]
    if H == 0 or W == 0 or D == 0:
        raise ValueError(f'`x` must have at least one cell and one channel, got shape {list(x.shape)}')
    _states(A)
    _shape(x_dbl, 'x_dbl', '[B, H, W, P, R + 2N]', (B, H, W, x_dbl.shape[3], R + 2 * N))
    _shape(dt_weight, 'dt_weight', '[K, D, R]', (K, D, R))
    _shape(A, 'A', '[K, D, N]', (K, D, N))
    for name, parameter in (('dt_bias', dt_bias), ('Ds', Ds)):
        if parameter is not None:
            _shape(parameter, name, '[K, D]', (K, D))
    for name, tensor in (('x', x), ('x_dbl', x_dbl)):
        _data(tensor, name, x)
    for name, parameter in (('dt_weight', dt_weight), ('dt_bias', dt_bias), ('A', A), ('Ds', Ds)):
        _parameter(parameter, name, x)


def check_es2d_scan(x_dbl: Tensor, A: Tensor) -> None:
    """Raises ValueError or TypeError unless tensors have what :func:`mmevm.ops.es2d_scan` adds to a visual scan."""
    check_tensor(x_dbl, 'x_dbl')
    check_tensor(A, 'A')
    _ndim(x_dbl, 'x_dbl', '[B, H, W, R + 2N]')
    _ndim(A, 'A', '[4, D, N]')
    if A.shape[0] > 4:
        raise ValueError(f'`A` must hold 4 parameter sets, which ES2D uses, got {A.shape[0]}')


def check_gate(z: Tensor, u: Tensor) -> None:
    """Raises ValueError or TypeError unless ``z`` can gate the output of a scan over ``u``."""
    check_tensor(z, 'z')
    _shape(z, 'z', '[B, D, L]', tuple(u.shape))
    _data(z, 'z', u)


def check_routes(routes: list[Route], step: int, parameter_sets: int, projections: int) -> None:
    """Raises ValueError or TypeError unless the routes fit the step, the parameter sets and the projections."""
    check_step(step)
    if not isinstance(routes, list | tuple) or not all(isinstance(route, Route) for route in routes):
        got = f'{type(routes).__name__} {routes!r:.80}'
        raise TypeError(f'`routes` must be a list of mmevm.ops.Route, got {got}; make each with Route(*values)')
    if step < 1:
        raise ValueError(f'`step` must be at least 1, got {step}')
    if not routes:
        raise ValueError('`routes` must hold at least one route, got none')
    for route in routes:
        if not (0 <= route.row < step and 0 <= route.col < step):
            raise ValueError(f'a route must start inside the first {step} x {step} cells, got {route}')
        if not 0 <= route.parameters < parameter_sets:
            raise ValueError(f"a route's parameter set must be below K = {parameter_sets}, got {route}")
        if not 0 <= route.projection < projections:
            raise ValueError(f"a route's projection must be below P = {projections}, got {route}")
