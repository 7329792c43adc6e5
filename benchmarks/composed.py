"""The map scans composed of library calls, the way the released code of EfficientVMamba and VMamba computes them.

The routes' tokens are copied out of the map into sequences, projected by ``einsum``, cast to float32, scanned by one
call of mamba_ssm's ``selective_scan_fn`` over all of them, and copied back. The project's operator
replaces this, and the benchmarks compare it with this.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmevm.layers import mixers
from mmevm.layers.mixers import ES2D, ScanMixer
from mmevm.ops import Route, es2d_routes, selective_scan

SelectiveScan = Callable[..., Tensor]
"""mamba_ssm's ``selective_scan_fn`` or an equivalent."""

# Routes and step of the mixers.
ATROUS, CROSS = (es2d_routes(2), 2), (mixers.ROUTES, 1)


def _cells(image: Tensor, route: Route, step: int) -> Tensor:
    """Return a view of the cells that a route visits, in the order of its forward walk: [B, D, rows, columns]."""
    cells = image[:, :, route.row :: step, route.col :: step]
    return cells.transpose(2, 3) if route.column_major else cells


def _split(x: Tensor, routes: list[Route], step: int) -> Tensor:
    """Copy routes out of a map: [B, D, H, W] -> [B, K, D, L], with zeros past the edge."""
    B, D, H, W = x.shape
    if H % step or W % step:
        x = F.pad(x, (0, -W % step, 0, -H % step))
    xs = x.new_empty(B, len(routes), D, x.shape[2] // step * (x.shape[3] // step))
    for k, route in enumerate(routes):
        cells = _cells(x, route, step)
        xs[:, k].view(cells.shape).copy_(cells.flip(2, 3) if route.reverse else cells)
    return xs


def _merge(ys: Tensor, H: int, W: int, routes: list[Route], step: int) -> Tensor:
    """Copy routes back and sum those that share cells: [B, K, D, L] -> [B, D, H, W]; the adjoint of _split."""
    B, _, D, _ = ys.shape
    y = ys.new_empty(B, D, H + -H % step, W + -W % step)
    written = set()
    for k, route in enumerate(routes):
        cells = _cells(y, route, step)
        tokens = ys[:, k].view(cells.shape)
        if route.reverse:
            tokens = tokens.flip(2, 3)
        if (route.row, route.col) in written:
            cells += tokens
        else:
            cells.copy_(tokens)
        written.add((route.row, route.col))
    return y[:, :, :H, :W].contiguous() if H % step or W % step else y


class SplitRoutes(torch.autograd.Function):
    """[B, D, H, W], routes, step -> [B, K, D, L]. Its gradient is a merge."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, routes: list[Route], step: int) -> Tensor:
        """Args: x (Tensor[B, D, H, W])."""
        ctx.size, ctx.plan = x.shape[2:], (routes, step)
        return _split(x, routes, step)

    @staticmethod
    def backward(ctx: Any, dxs: Tensor) -> tuple[Tensor, None, None]:
        """Args: dxs (Tensor[B, K, D, L])."""
        return _merge(dxs.contiguous(), *ctx.size, *ctx.plan), None, None


class MergeRoutes(torch.autograd.Function):
    """[B, K, D, L], H, W, routes, step -> [B, D, H, W]. Its gradient is a split."""

    @staticmethod
    def forward(ctx: Any, ys: Tensor, H: int, W: int, routes: list[Route], step: int) -> Tensor:
        """Args: ys (Tensor[B, K, D, L]); H, W (int): size of the map."""
        ctx.plan = routes, step
        return _merge(ys, H, W, routes, step)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, None, None, None, None]:
        """Args: dy (Tensor[B, D, H, W])."""
        return _split(dy, *ctx.plan), None, None, None, None


def composed_scan(op: ScanMixer, x: Tensor, scan: SelectiveScan = selective_scan) -> Tensor:
    """Return what ``op.scan`` computes, composed of library calls.

    Args:
        op (ScanMixer): ES2D or SS2D, whose parameters are used; ES2D's step must be 2.
        x (Tensor[B, H, W, D]): Feature map. Upstream keeps it as [B, D, H, W]; a permuted view of that is accepted.
        scan (SelectiveScan): The scan itself.

    Returns:
        Tensor[B, H, W, D]: Merged map, float32, contiguous.

    Raises:
        ValueError: If the step is not 2; upstream's code does not support others either.
    """
    if isinstance(op, ES2D) and op.step_size != 2:
        raise ValueError(f'the composed scan only supports step 2, got {op.step_size}')
    plan = ATROUS if isinstance(op, ES2D) else CROSS
    H, W = x.shape[1:3]
    N, R = op.d_state, op.dt_rank
    xs = SplitRoutes.apply(x.permute(0, 3, 1, 2), *plan)  # [B, H, W, D] -> [B, 4, D, L]
    x_dbl = torch.einsum('bkdl,kcd->bkcl', xs, op.x_proj_weight)
    rank, Bs, Cs = x_dbl.split([R, N, N], dim=2)
    delta = torch.einsum('bkrl,kdr->bkdl', rank, op.dt_projs_weight)
    ys = scan(
        xs.float().flatten(1, 2),  # [B, 4 D, L]
        delta.contiguous().float().flatten(1, 2),
        -torch.exp(op.A_logs.float()),
        Bs.contiguous().float(),
        Cs.contiguous().float(),
        op.Ds.float(),
        delta_bias=op.dt_projs_bias.float().flatten(),
        delta_softplus=True,
    )
    y = MergeRoutes.apply(ys.view(xs.shape), H, W, *plan)
    return y.permute(0, 2, 3, 1).contiguous()  # [B, D, H, W] -> [B, H, W, D]


def compose(model: nn.Module, scan: SelectiveScan = selective_scan) -> nn.Module:
    """Make every ES2D and SS2D of a network scan by :func:`composed_scan`, in place; return the network."""
    for module in model.modules():
        if isinstance(module, ScanMixer):
            module.scan = partial(composed_scan, module, scan=scan)
    return model
