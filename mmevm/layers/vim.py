"""Vim's mixer and block, and its positions and class token."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmevm.layers.basic import DropPath, RMSNorm, add_residual, dense, is_plain
from mmevm.layers.mixers import init_A_log, init_dt_bias, init_dt_weight
from mmevm.ops import Route, selective_scan, visual_scan
from mmevm.ops.passes import ACTIVATIONS, available, depthwise_conv, gated_mean_, linear, projected_scan


def middle(grid: tuple[int, int]) -> int:
    """Return the index of the class token among the tokens of a grid of patches."""
    return grid[0] * grid[1] // 2


def insert_middle(tokens: Tensor, token: Tensor, grid: tuple[int, int]) -> Tensor:
    """Args: tokens (Tensor[B, H * W, C]), token (Tensor[B, 1, C]). Returns: Tensor[B, H * W + 1, C]."""
    m = middle(grid)
    return torch.cat([tokens[:, :m], token, tokens[:, m:]], dim=1)


def split_middle(tokens: Tensor, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Undo :func:`insert_middle`. Returns: Tensor[B, H * W, C] and Tensor[B, C]."""
    m = middle(grid)
    return torch.cat([tokens[:, :m], tokens[:, m + 1 :]], dim=1), tokens[:, m]


def resize_position(embedding: Tensor, grid: tuple[int, int], new_grid: tuple[int, int]) -> Tensor:
    """Interpolate a position embedding bicubically for another grid; the class token's stays, in the new middle.

    Args:
        embedding (Tensor[1, H * W + 1, C]): Position embedding.
        grid (tuple[int, int]): H and W, the patches it was made for.
        new_grid (tuple[int, int]): H' and W', the patches it is needed for.

    Returns:
        Tensor[1, H' * W' + 1, C].
    """
    if grid == new_grid:
        return embedding
    patches, token = split_middle(embedding, grid)
    patches = patches.unflatten(1, grid).permute(0, 3, 1, 2)  # [1, H * W, C] -> [1, C, H, W]
    patches = F.interpolate(patches, size=new_grid, mode='bicubic', align_corners=False)
    return insert_middle(patches.flatten(2).transpose(1, 2), token.unsqueeze(1), new_grid)


# Forward and backward over a map of one row; each direction is a scan of its own, with its own parameters.
ROUTES = [Route(0, 0, column_major=False, reverse=reverse, parameters=0, projection=0) for reverse in (False, True)]


class BidirectionalMamba(nn.Module):
    """Selective scans of a sequence in both directions, each after a causal convolution (Vim, arXiv 2401.09417).

    The mean of both is gated and projected. Nothing is reversed: the backward direction is a convolution with the
    reversed kernel, and a route that the scan walks from its end.

    Args:
        channels (int): C; the inner width D is ``expand * C``.
        d_state (int): States N per channel.
        d_conv (int): Taps of the convolution.
        expand (int): D / C.
    """

    def __init__(self, channels: int, d_state: int = 16, d_conv: int = 4, expand: int = 2) -> None:
        super().__init__()
        D, N, R = expand * channels, d_state, math.ceil(channels / 16)
        self.in_proj = nn.Linear(channels, 2 * D, bias=False)
        for suffix in ('', '_b'):
            self.add_module(f'conv1d{suffix}', nn.Conv1d(D, D, d_conv, groups=D))
            self.add_module(f'x_proj{suffix}', nn.Linear(D, R + 2 * N, bias=False))
            self.add_module(f'dt_proj{suffix}', nn.Linear(R, D))
        self.A_log, self.A_b_log = (nn.Parameter(torch.empty(D, N)) for _ in range(2))
        self.D, self.D_b = (nn.Parameter(torch.ones(D)) for _ in range(2))
        self.out_proj = nn.Linear(D, channels, bias=False)
        self.reset_scan_parameters()

    def reset_scan_parameters(self) -> None:
        """Initialise as upstream: S4D-real in both directions, but time steps from 1e-3 on in the forward one."""
        for A_log in (self.A_log, self.A_b_log):
            init_A_log(A_log)
        for dt_proj in (self.dt_proj, self.dt_proj_b):
            init_dt_weight(dt_proj.weight)
        init_dt_bias(self.dt_proj.bias)
        nn.init.zeros_(self.dt_proj_b.bias)

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """Args: x (Tensor[B, L, C]), residual (Tensor[B, L, C], optional): added. Returns: Tensor[B, L, C]."""
        in_proj = self.in_proj
        plain = is_plain(in_proj) and in_proj.bias is None
        if plain:
            # Two products instead of one: each half is then contiguous for what follows.
            weight_x, weight_z = in_proj.weight.chunk(2)
            tokens = linear(x, weight_x)
        else:
            tokens, z = in_proj(x).chunk(2, dim=-1)
        tokens = tokens.unsqueeze(1)  # a map of one row: [B, 1, L, D]
        ahead = self.scan(tokens, self.conv1d, self.x_proj, self.dt_proj, self.A_log, self.D)
        back = self.scan(tokens, self.conv1d_b, self.x_proj_b, self.dt_proj_b, self.A_b_log, self.D_b, reverse=True)
        if plain:
            z = linear(x, weight_z)
        return dense(gated_mean_(ahead.squeeze(1), back.squeeze(1), z), self.out_proj, residual=residual)

    @staticmethod
    def scan(
        x: Tensor,
        conv: nn.Conv1d,
        x_proj: nn.Linear,
        dt_proj: nn.Linear,
        A_log: Tensor,
        D: Tensor,
        reverse: bool = False,
    ) -> Tensor:
        """Scan in one direction. Args: x (Tensor[B, 1, L, D]). Returns: Tensor[B, 1, L, D]."""
        y = causal_conv(x, conv, reverse, 'silu')
        routes = ROUTES[1:] if reverse else ROUTES[:1]
        if is_plain(x_proj, dt_proj) and x_proj.bias is None:
            weights = x_proj.weight, dt_proj.weight, dt_proj.bias, A_log, D
            if available(y, *weights):
                return projected_scan(y, *weights, routes)
        # The scan's parameters stay in float32 where the model or autocast is in half precision.
        dtype = torch.promote_types(y.dtype, torch.float32)
        A, D = -torch.exp(A_log.to(dtype)), D.to(dtype)
        x_dbl = x_proj(y)
        if not is_plain(dt_proj):
            return _scan_with_time_steps(y, x_dbl, dt_proj, A, D, reverse)
        return visual_scan(
            y,
            x_dbl.unsqueeze(-2),
            dt_proj.weight.to(dtype).unsqueeze(0),
            A.unsqueeze(0),
            D.unsqueeze(0),
            routes=routes,
            dt_bias=dt_proj.bias.to(dtype).unsqueeze(0),
        )


def _scan_with_time_steps(y: Tensor, x_dbl: Tensor, dt_proj: nn.Module, A: Tensor, D: Tensor, reverse: bool) -> Tensor:
    """Scan in one direction where calling ``dt_proj`` is more than a product with its weight."""
    rank, Bs, Cs = x_dbl.split([x_dbl.shape[-1] - 2 * A.shape[1], A.shape[1], A.shape[1]], dim=-1)
    tensors = (t.squeeze(1).mT for t in (y, dt_proj(rank), Bs, Cs))  # [B, 1, L, C] -> [B, C, L]
    u, delta, Bs, Cs = (t.flip(-1) for t in tensors) if reverse else tensors
    scanned = selective_scan(u, delta, A, Bs, Cs, D, delta_softplus=True)
    return (scanned.flip(-1) if reverse else scanned).mT.unsqueeze(1)


def causal_conv(x: Tensor, conv: nn.Conv1d, reverse: bool = False, activation: str | None = None) -> Tensor:
    """Apply a depthwise convolution that sees the present token and those before it, or, in reverse, those after it.

    Args:
        x (Tensor[B, 1, L, D]): Tokens, as a map of one row.
        conv (nn.Conv1d): Depthwise convolution of T taps, the last of which is the present token's.
        reverse (bool): Convolves as if the tokens came in the opposite order.
        activation (str, optional): What follows the convolution; see :func:`mmevm.ops.passes.depthwise_conv`.

    Returns:
        Tensor[B, 1, L, D].
    """
    if not is_plain(conv):
        return ACTIVATIONS[activation](_called_causal_conv(x, conv, reverse))
    past, none = (0, conv.kernel_size[0] - 1), (0, 0)
    before, after = (none, past) if reverse else (past, none)
    return depthwise_conv(x, conv.weight, conv.bias, None, activation, before, after, flip=reverse)


def _called_causal_conv(x: Tensor, conv: nn.Module, reverse: bool) -> Tensor:
    """:func:`causal_conv` where calling ``conv`` is more than a convolution with its weight."""
    tokens = x.squeeze(1).mT  # [B, 1, L, D] -> [B, D, L]
    tokens = F.pad(tokens.flip(-1) if reverse else tokens, (conv.kernel_size[0] - 1, 0))
    y = conv(tokens)
    return (y.flip(-1) if reverse else y).mT.unsqueeze(1)


class VimBlock(nn.Module):
    """Normalisation, mixer and residual connection (arXiv 2401.09417, section 3.3).

    Args:
        channels (int): C.
        drop_path (float): Stochastic depth rate.
    """

    def __init__(self, channels: int, drop_path: float = 0.0) -> None:
        super().__init__()
        self.mixer = BidirectionalMamba(channels)
        self.norm = RMSNorm(channels)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """Args: x (Tensor[B, L, C]), at least float32. Returns: Tensor[B, L, C], in ``x``'s dtype."""
        return add_residual(x, self.mixer, BidirectionalMamba, self.norm(x), self.drop_path)
