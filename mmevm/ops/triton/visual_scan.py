"""The operators of the scan over a feature map."""

from collections import Counter
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from mmevm.ops import checks
from mmevm.ops.checks import MapInputs, contiguous
from mmevm.ops.routes import Route, unflatten
from mmevm.ops.triton import launch


def _layers(keys: list[tuple[int, ...]]) -> list[int]:
    """How many earlier routes have the same key: routes that share cells write to layers of their own."""
    seen: Counter[tuple[int, ...]] = Counter()
    layers = []
    for key in keys:
        layers.append(seen[key])
        seen[key] += 1
    return layers


@lru_cache(maxsize=64)
def route_table(routes: tuple[Route, ...]) -> tuple[tuple[int, ...], int, int]:
    """The routes as the kernels have them: constants, for which each list of routes is compiled once.

    In memory they would have to be copied to the device, which interrupts a call and cannot be captured in a CUDA
    graph; and a copy that is kept could lie in the memory of the graph that made it.

    Returns:
        tuple[tuple[int, ...], int, int]: Eight integers a route: its fields, the layer of its results, the layer of its
        projection's gradient; and how many layers of either kind there are.
    """
    results = _layers([(r.row, r.col) for r in routes])
    projections = _layers([(r.row, r.col, r.projection) for r in routes])
    rows = [(*map(int, route), y, g) for route, y, g in zip(routes, results, projections, strict=True)]
    return tuple(field for row in rows for field in row), max(results) + 1, max(projections) + 1


def _scan(inputs: MapInputs, step: int, routes: list[Route]) -> launch.Scan:
    checks.check_visual_scan(inputs)
    checks.check_routes(routes, step, parameter_sets=inputs.A.shape[0], projections=inputs.x_dbl.shape[3])
    x, x_dbl, weight, bias, A, Ds = contiguous(inputs)
    H, W, D = x.shape[1:]
    P, E = x_dbl.shape[3:]
    R, N = weight.shape[2], A.shape[2]
    return launch.Scan(
        x=x,
        delta=x_dbl,
        A=A,
        Bs=x_dbl[..., R:],
        Cs=x_dbl[..., R + N :],
        Ds=Ds,
        bias=bias,
        softplus=True,
        n_routes=len(routes),
        channels=D,
        length=-(-H // step) * -(-W // step),
        x_strides=(H * W * D, 0, D, 1),
        bc_strides=(H * W * P * E, E, P * E, 1),
        weight=weight,
        routes=route_table(tuple(routes))[0],
        size=(H, W),
        step=step,
    )


def count_segments(*arguments: Any) -> int:
    """Into how many segments the forward pass cuts routes: what its arguments are, with a list of routes."""
    *tensors, step, routes = arguments
    return launch.count_segments(_scan(MapInputs(*tensors), step, routes))


def _new_map(x: Tensor, routes: list[Route], step: int) -> Tensor:
    """A map of results [layers, B, H, W, D], zero where no route passes; sums of layers are kept precise."""
    _, layers, _ = route_table(tuple(routes))
    new = x.new_empty if layers * step**2 == len(routes) else x.new_zeros
    return new((layers, *x.shape), dtype=x.dtype if layers == 1 else checks.accumulate_dtype(x))


def _by_parameters(grad: Tensor | None, routes: list[Route], like: Tensor) -> Tensor:
    """Sums the routes' gradients [routes, ...] into those of the parameter sets."""
    which = [route.parameters for route in routes]
    if grad is not None and which == list(range(like.shape[0])):
        return grad
    total = torch.zeros_like(like, memory_format=torch.contiguous_format)
    if grad is not None:
        for i, k in enumerate(which):
            total[k] += grad[i]
    return total


def forward(*arguments: Any) -> tuple[Tensor, Tensor]:
    """``visual_scan``: merged map, and the states before each chunk [B, routes, chunks, N, D] or nothing."""
    *tensors, step, flat_routes, save_states = arguments
    routes = unflatten(flat_routes)
    scan = _scan(MapInputs(*tensors), step, routes)
    y, states = _new_map(scan.x, routes, step), scan.new_states(save_states)
    launch.forward(scan, y, scan.x.numel(), states if save_states else None, None)
    return launch.total(y, scan.x.dtype), states


def backward(dy: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
    """``_visual_scan_backward``: the gradients of the six tensors, zero for absent ones."""
    *tensors, states, step, flat_routes = arguments
    routes = unflatten(flat_routes)
    inputs = MapInputs(*tensors)
    scan = _scan(inputs, step, routes)
    x, x_dbl, dt_weight, _, A, _ = inputs
    R, N = dt_weight.shape[2], A.shape[2]
    dx = _new_map(scan.x, routes, step)
    _, _, layers = route_table(tuple(routes))
    # Every block of channels, and every route of a projection's cells, adds to these: atomically to one copy, or each
    # to its own where order must not matter.
    copies = scan.n_blocks * layers if torch.are_deterministic_algorithms_enabled() else 1
    dx_dbl = scan.new(copies, *x_dbl.shape).zero_()
    outputs: dict[str, Tensor | int] = {
        'p_dx': dx,
        'p_ddelta': dx_dbl,
        'p_dB': dx_dbl[..., R:],
        'p_dC': dx_dbl[..., R + N :],
    }
    outputs |= {'s_y': x.numel(), 's_copy': x_dbl.numel() if copies > 1 else 0}
    sums = launch.backward(scan, dy.contiguous(), states.contiguous(), None, outputs)
    per_channel = A[..., 0]
    return (
        launch.total(dx, x.dtype),
        launch.total(dx_dbl, x_dbl.dtype),
        _by_parameters(sums.weight, routes, dt_weight),
        _by_parameters(sums.bias, routes, per_channel),
        _by_parameters(sums.A, routes, A),
        _by_parameters(sums.Ds, routes, per_channel),
    )
