"""The projection of a map's cells by their phase's weight."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mmevm.ops import es2d_routes
from mmevm.ops.transforms import need_plain_operations


def project_phases(x: Tensor, weight: Tensor, step: int) -> Tensor:
    """``x_dbl[b, h, w] = weight[set of the phase of (h, w)] @ x[b, h, w]``, read and written where the phases lie.

    Args:
        x (Tensor[B, H, W, D]): Feature map.
        weight (Tensor[4, M, D]): One projection per parameter set, in ``x``'s dtype.
        step (int): Distance between neighbouring cells of a phase.

    Returns:
        Tensor[B, H, W, M].
    """
    if torch.jit.is_tracing() or need_plain_operations(x, weight):
        return _project_by_copies(x, weight, step)
    if not torch.is_grad_enabled():
        return _project(x, weight.mT, step)
    return PhaseProjection.apply(x, weight, step)


class PhaseProjection(torch.autograd.Function):
    """:func:`project_phases` with gradients: of plain operations, the phases' copies would be kept for the backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, step: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.step = step
        return _project(x, weight.mT, step)

    @staticmethod
    def backward(ctx: Any, dx_dbl: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        dx = _project(dx_dbl, weight, ctx.step) if ctx.needs_input_grad[0] else None
        dweight = _weight_gradient(x, dx_dbl, weight, ctx.step) if ctx.needs_input_grad[1] else None
        return dx, dweight, None


def _project(x: Tensor, weight: Tensor, step: int) -> Tensor:
    """Args: x (Tensor[B, H, W, I]), weight (Tensor[4, I, O]). Returns: Tensor[B, H, W, O]."""
    y = x.new_empty(*x.shape[:3], weight.shape[2])
    for route in es2d_routes(step):
        cells = x[:, route.row :: step, route.col :: step]
        # A batch of the map's rows: their cells lie evenly spaced, which a matrix product can read in place.
        rows = cells.reshape(cells.shape[0] * cells.shape[1], *cells.shape[2:])
        product = torch.bmm(rows, weight[route.parameters].expand(rows.shape[0], -1, -1))
        y[:, route.row :: step, route.col :: step] = product.reshape(*cells.shape[:3], product.shape[2])
    return y


def _project_by_copies(x: Tensor, weight: Tensor, step: int) -> Tensor:
    """:func:`project_phases` for tracers and ``torch.func``, which take neither Functions nor writes in place."""
    H, W = x.shape[1:3]
    x = F.pad(x, (0, 0, 0, -W % step, 0, -H % step))
    phases = [F.linear(x[:, r.row :: step, r.col :: step], weight[r.parameters]) for r in es2d_routes(step)]
    y = torch.stack(phases).unflatten(0, (step, step))  # [p (columns), p (rows), B, H / p, W / p, M]
    return y.permute(2, 3, 1, 4, 0, 5).flatten(3, 4).flatten(1, 2)[:, :H, :W]


def _weight_gradient(x: Tensor, dy: Tensor, weight: Tensor, step: int) -> Tensor:
    products: list[list[Tensor]] = [[] for _ in weight]
    for route in es2d_routes(step):
        cells, dcells = (t[:, route.row :: step, route.col :: step].reshape(-1, t.shape[3]) for t in (x, dy))
        products[route.parameters].append(dcells.mT @ cells)
    return torch.stack([sum(terms) for terms in products])
