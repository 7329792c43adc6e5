"""The operators in plain PyTorch: the specification that every other backend is compared with.

Differentiable and float64-safe. The recurrence runs token by token, as it is written, so that it never divides by, nor
subtracts, accumulated exponents, which lose precision over long sequences.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from mmevm.ops.checks import accumulate_dtype
from mmevm.ops.routes import Route


def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    Bs: Tensor,
    Cs: Tensor,
    Ds: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
) -> tuple[Tensor, Tensor]:
    """The selective scan (Mamba, arXiv 2312.00752, section 3), one token after the other.

    Args:
        u (Tensor[B, D, L]): Input sequence.
        delta (Tensor[B, D, L]): Time step of each token and channel.
        A (Tensor[D, N]): Continuous state matrix, diagonal and real.
        Bs (Tensor[B, G, N, L]): Input matrix of each token, shared by the D / G channels of a group.
        Cs (Tensor[B, G, N, L]): Output matrix of each token, likewise.
        Ds (Tensor[D], optional): Skip connection.
        delta_bias (Tensor[D], optional): Added to ``delta``.
        delta_softplus (bool): Applies softplus to ``delta`` after the bias.

    Returns:
        tuple[Tensor[B, D, L], Tensor[B, D, N]]: Output in ``u``'s dtype and last state in the accumulation dtype.
    """
    dtype = accumulate_dtype(u)
    x, delta, Bs, Cs = (t.to(dtype) for t in (u, delta, Bs, Cs))
    if delta_bias is not None:
        delta = delta + delta_bias[:, None]
    if delta_softplus:
        delta = F.softplus(delta)
    per_group = x.shape[1] // Bs.shape[1]
    state = x.new_zeros(*x.shape[:2], A.shape[1])
    outputs = []
    for t in range(x.shape[2]):
        B_t, C_t = (m[..., t].repeat_interleave(per_group, dim=1) for m in (Bs, Cs))  # [B, D, N]
        step = delta[:, :, t, None]
        state = torch.exp(step * A) * state + step * B_t * x[:, :, t, None]
        outputs.append((state * C_t).sum(-1))
    y = torch.stack(outputs, dim=-1)
    if Ds is not None:
        y = y + Ds[:, None] * x
    return y.to(u.dtype), state


def _tokens(grid: Tensor, route: Route, step: int) -> Tensor:
    """The tokens of a route in its order: [B, rows * step, cols * step, C] -> [B, C, L]."""
    cells = grid[:, route.row :: step, route.col :: step]
    if route.column_major:
        cells = cells.transpose(1, 2)
    tokens = cells.flatten(1, 2).transpose(1, 2)
    return tokens.flip(-1) if route.reverse else tokens


def _cells(tokens: Tensor, route: Route, rows: int, cols: int) -> Tensor:
    """The inverse of :func:`_tokens`: [B, C, L] -> [B, rows, cols, C]."""
    if route.reverse:
        tokens = tokens.flip(-1)
    if route.column_major:
        return tokens.unflatten(-1, (cols, rows)).permute(0, 3, 2, 1)
    return tokens.unflatten(-1, (rows, cols)).permute(0, 2, 3, 1)


def visual_scan(
    x: Tensor,
    x_dbl: Tensor,
    dt_weight: Tensor,
    dt_bias: Tensor | None,
    A: Tensor,
    Ds: Tensor | None,
    step: int,
    routes: list[Route],
) -> Tensor:
    """The sum of the selective scans along ``routes``; see :func:`mmevm.ops.visual_scan` for the arguments."""
    H, W = x.shape[1:3]
    R, N = dt_weight.shape[2], A.shape[2]
    rows, cols = -(-H // step), -(-W // step)
    pad = (0, cols * step - W, 0, rows * step - H)
    dtype = accumulate_dtype(x)
    grid = F.pad(x, (0, 0, *pad)).to(dtype)
    projections = F.pad(x_dbl, (0, 0, 0, 0, *pad)).to(dtype)

    u = torch.cat([_tokens(grid, route, step) for route in routes], dim=1)
    rank, Bs, Cs = torch.stack(
        [_tokens(projections[..., route.projection, :], route, step) for route in routes], dim=1
    ).split([R, N, N], dim=2)
    which = [route.parameters for route in routes]
    delta = torch.einsum('brel,rde->brdl', rank, dt_weight[which]).flatten(1, 2)
    y, _ = selective_scan(
        u,
        delta,
        A[which].flatten(0, 1),
        Bs,
        Cs,
        None if Ds is None else Ds[which].flatten(),
        None if dt_bias is None else dt_bias[which].flatten(),
        delta_softplus=True,
    )
    # Like y, which depends on every input: torch.func.vmap writes a batch into batched tensors alone.
    merged = y.new_zeros(grid.shape, dtype=dtype)
    for route, tokens in zip(routes, y.chunk(len(routes), dim=1), strict=True):
        merged[:, route.row :: step, route.col :: step] += _cells(tokens, route, rows, cols)
    return merged[:, :H, :W].to(x.dtype)
