"""The atrous selective scan composed of library calls, the way EfficientVMamba's released code computes it.

The phases are copied out of the map into sequences, projected by ``einsum``, cast to float32, scanned by one call of
mamba_ssm's ``selective_scan_fn`` over all of them, and copied back. This is what the project's operator replaces, and
what the GPU benchmark compares it with.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmevm.layers.es2d import ES2D
from mmevm.ops import selective_scan

SelectiveScan = Callable[..., Tensor]
"""mamba_ssm's ``selective_scan_fn`` or an equivalent."""

# (row, column, column-major) of the four phases of a 2 x 2 cell, in the order of the parameter sets.
PHASES = ((0, 0, False), (1, 0, True), (0, 1, False), (1, 1, True))


def _split(x: Tensor) -> Tensor:
    """Copies phases out of a map: [B, D, H, W] -> [B, 4, D, L], with zeros where H or W is odd."""
    B, D, H, W = x.shape
    if H % 2 or W % 2:
        x = F.pad(x, (0, W % 2, 0, H % 2))
    xs = x.new_empty(B, 4, D, x.shape[2] // 2 * (x.shape[3] // 2))
    for k, (row, col, column_major) in enumerate(PHASES):
        cells = x[:, :, row::2, col::2]
        if column_major:
            cells = cells.transpose(2, 3)
        xs[:, k].view(cells.shape).copy_(cells)
    return xs


def _merge(ys: Tensor, H: int, W: int) -> Tensor:
    """Copies phases back: [B, 4, D, L] -> [B, D, H, W]; the opposite of :func:`_split`."""
    B, _, D, _ = ys.shape
    rows, cols = -(-H // 2), -(-W // 2)
    y = ys.new_empty(B, D, 2 * rows, 2 * cols)
    for k, (row, col, column_major) in enumerate(PHASES):
        tokens = ys[:, k]
        cells = tokens.view(B, D, cols, rows).transpose(2, 3) if column_major else tokens.view(B, D, rows, cols)
        y[:, :, row::2, col::2] = cells
    return y[:, :, :H, :W].contiguous() if H % 2 or W % 2 else y


class SplitPhases(torch.autograd.Function):
    """[B, D, H, W] -> [B, 4, D, L]. Its gradient is a merge."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """Args: x (Tensor[B, D, H, W])."""
        ctx.size = x.shape[2:]
        return _split(x)

    @staticmethod
    def backward(ctx: Any, dxs: Tensor) -> Tensor:
        """Args: dxs (Tensor[B, 4, D, L])."""
        return _merge(dxs.contiguous(), *ctx.size)


class MergePhases(torch.autograd.Function):
    """[B, 4, D, L], H, W -> [B, D, H, W]. Its gradient is a split."""

    @staticmethod
    def forward(ctx: Any, ys: Tensor, H: int, W: int) -> Tensor:
        """Args: ys (Tensor[B, 4, D, L]); H, W (int): size of the map."""
        return _merge(ys, H, W)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, None, None]:
        """Args: dy (Tensor[B, D, H, W])."""
        return _split(dy), None, None


def composed_scan(op: ES2D, x: Tensor, scan: SelectiveScan = selective_scan) -> Tensor:
    """What ``op.scan`` computes, composed of library calls.

    Args:
        op (ES2D): Whose parameters are used; its step must be 2.
        x (Tensor[B, H, W, D]): Feature map. Upstream keeps it as [B, D, H, W]; a permuted view of that is welcome.
        scan (SelectiveScan): The scan itself.

    Returns:
        Tensor[B, H, W, D]: Merged map, float32, contiguous.

    Raises:
        ValueError: If the step is not 2, for which upstream's code does not work either.
    """
    if op.step_size != 2:
        raise ValueError(f'the composed scan serves step 2 alone, got {op.step_size}')
    H, W = x.shape[1:3]
    N, R = op.d_state, op.dt_rank
    xs = SplitPhases.apply(x.permute(0, 3, 1, 2))  # [B, H, W, D] -> [B, 4, D, L]
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
    y = MergePhases.apply(ys.view(xs.shape), H, W)
    return y.permute(0, 2, 3, 1).contiguous()  # [B, D, H, W] -> [B, H, W, D]


def compose(model: nn.Module, scan: SelectiveScan = selective_scan) -> nn.Module:
    """Makes every ES2D of a network scan by :func:`composed_scan`, in place; returns the network."""
    for module in model.modules():
        if isinstance(module, ES2D):
            module.scan = partial(composed_scan, module, scan=scan)
    return model
