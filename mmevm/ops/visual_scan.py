"""Selective scans along routes over a feature map."""

import torch
from torch import Tensor

from mmevm.ops import backends, checks, reference
from mmevm.ops.routes import Route, es2d_routes, flatten


def visual_scan(
    x: Tensor,
    x_dbl: Tensor,
    dt_weight: Tensor,
    A: Tensor,
    Ds: Tensor | None = None,
    *,
    routes: list[Route],
    step: int = 1,
    dt_bias: Tensor | None = None,
    backend: str = 'auto',
) -> Tensor:
    """Sum of the selective scans along several routes over a channels-last map, read and written in place.

    A token's time step, input matrix and output matrix come from ``x_dbl``: its last dimension holds the R low-rank
    values of the time step, then B and then C. ``delta = softplus(dt_weight . rank + dt_bias)`` is made on the way and
    never stored. Data may be float16, bfloat16, float32 or float64; delta, the state and all sums are float32, or
    float64 where ``x`` is float64.

    Args:
        x (Tensor[B, H, W, D]): Feature map.
        x_dbl (Tensor[B, H, W, P, R + 2N]): Projections of every cell; a route reads the one it names.
        dt_weight (Tensor[K, D, R]): Projection from the low-rank values to the time step, float32.
        A (Tensor[K, D, N]): State matrices, 1 to 256 states, float32.
        Ds (Tensor[K, D], optional): Skip connections, float32.
        routes (list[Route]): The routes; see :class:`mmevm.ops.Route`.
        step (int): Distance between neighbouring cells of a route, at least 1.
        dt_bias (Tensor[K, D], optional): Bias of the time step, float32.
        backend (str): 'auto', 'compiled', 'triton' or 'reference'; 'auto' takes the fastest that serves the data.

    Returns:
        Tensor[B, H, W, D]: Merged map in ``x``'s dtype; zero where no route passes.

    Raises:
        ValueError: If a shape, device, step, route or the backend's name does not fit.
        TypeError: If a dtype does not fit, a complex ``A`` among them.
        RuntimeError: If the backend was asked for by name and cannot serve the data.
    """
    inputs = checks.MapInputs(x, x_dbl, dt_weight, dt_bias, A, Ds)
    # A tracer would take every comparison of sizes for a risk; the traced operator checks them itself.
    if not torch.jit.is_tracing():
        checks.check_visual_scan(inputs)
        checks.check_routes(routes, step, parameter_sets=A.shape[0], projections=x_dbl.shape[3])
    chosen = backends.choose(backend, *inputs)
    if chosen == 'reference':
        return reference.visual_scan(*inputs, step, routes)
    return backends.operators(chosen).visual_scan(*inputs, step, flatten(routes), backends.needs_grad(*inputs))[0]


def es2d_scan(
    x: Tensor,
    x_dbl: Tensor,
    dt_weight: Tensor,
    A: Tensor,
    Ds: Tensor | None = None,
    *,
    step: int = 2,
    dt_bias: Tensor | None = None,
    backend: str = 'auto',
) -> Tensor:
    """The atrous selective scan ES2D (arXiv 2403.09977, section 4.1): each phase of the map is one sequence.

    Args:
        x (Tensor[B, H, W, D]): Feature map.
        x_dbl (Tensor[B, H, W, R + 2N]): Projection of every cell by its phase's parameter set.
        dt_weight (Tensor[4, D, R]): See :func:`visual_scan`.
        A (Tensor[4, D, N]): See :func:`visual_scan`.
        Ds (Tensor[4, D], optional): See :func:`visual_scan`.
        step (int): Distance between neighbouring cells of a phase, at least 2.
        dt_bias (Tensor[4, D], optional): See :func:`visual_scan`.
        backend (str): See :func:`visual_scan`.

    Returns:
        Tensor[B, H, W, D]: Merged map in ``x``'s dtype.

    Raises:
        ValueError, TypeError, RuntimeError: As :func:`visual_scan`, and if ``step`` is below 2.
    """
    routes = es2d_routes(step)
    if not torch.jit.is_tracing():
        checks.check_es2d_scan(x_dbl, A)
    return visual_scan(
        x, x_dbl.unsqueeze(-2), dt_weight, A, Ds, routes=routes, step=step, dt_bias=dt_bias, backend=backend
    )
