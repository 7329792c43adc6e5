"""Blocks of EfficientVMamba and VMamba."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from mmevm.layers.basic import (
    BranchAttention,
    DropPath,
    SqueezeExcite,
    add_residual,
    channels_last,
    dense,
    depthwise_norm,
    has_hooks,
    keeps_all,
    may_fold,
    norm_tokens,
    pointwise,
    pointwise_norm,
)
from mmevm.layers.mixers import ES2D, SS2D
from mmevm.ops import training
from mmevm.ops.passes import scaled_sum_
from mmevm.ops.training import ACTIVATIONS


class EVSSBlock(nn.Module):
    """A global branch (ES2D) and a local one (convolution), fused by channel attention (arXiv 2403.09977, section 4.2).

    Args:
        channels (int): C.
        step_size (int): Step of the atrous scan.
        fusion (bool): Without it, the block has only the global branch, as in the paper's Table 5.
        drop_path (float): Stochastic depth rate.
    """

    def __init__(self, channels: int, step_size: int = 2, fusion: bool = True, drop_path: float = 0.0) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.op = ES2D(channels, step_size)
        self.fusion = fusion
        if fusion:
            self.conv_branch = nn.Sequential(
                nn.Conv2d(channels, channels, 3, padding=1, groups=channels),
                nn.BatchNorm2d(channels),
                nn.GELU(),
                nn.Conv2d(channels, channels, 1),
            )
            self.se = BranchAttention(channels)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """Args: x (Tensor[B, H, W, C]). Returns: Tensor[B, H, W, C]."""
        y = norm_tokens(x, self.norm)
        mixed = self.op(y)
        if not self.fusion:
            return x + self.drop_path(mixed)
        local = self._convolve(y)
        # x + drop_path(gate * mixed + gate * local), with the drop applied to the gates: two passes over the map.
        if self._owns_mixed() and keeps_all(self.drop_path):
            return scaled_sum_(mixed, self.se(mixed), local, self.se(local), x)
        gates = self.drop_path(torch.cat([self.se(mixed), self.se(local)], dim=1))  # [B, 2, 1, C]
        if training.available(x, mixed, local, gates):
            return training.blend(x, mixed, gates[:, :1].contiguous(), local, gates[:, 1:].contiguous())
        return torch.addcmul(torch.addcmul(x, mixed, gates[:, :1]), local, gates[:, 1:])

    def _owns_mixed(self) -> bool:
        """Whether nothing but the block sees what the mixer returns."""
        return type(self.op) is ES2D and not has_hooks(self.op, self.op.out_proj, self.se)

    def _convolve(self, y: Tensor) -> Tensor:
        if not may_fold(self.conv_branch):
            return channels_last(self.conv_branch, y)
        depthwise, norm, activation, conv = self.conv_branch
        if type(activation) is nn.GELU and activation.approximate == 'none' and not has_hooks(activation):
            return pointwise(depthwise_norm(y, depthwise, norm, 'gelu'), conv)
        return pointwise(activation(depthwise_norm(y, depthwise, norm)), conv)


def _conv_bn(in_channels: int, channels: int, kernel_size: int = 1, groups: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(in_channels, channels, kernel_size, padding=kernel_size // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(channels))


class InvertedResidual(nn.Module):
    """Inverted residual with channel attention (InRes, arXiv 2403.09977, section 4.3; MobileNetV2, arXiv 1801.04381).

    Args:
        channels (int): C; the hidden width is 4C.
        drop_path (float): Stochastic depth rate.
    """

    expansion = 4

    def __init__(self, channels: int, drop_path: float = 0.0) -> None:
        super().__init__()
        hidden = self.expansion * channels
        self.conv_pw = _conv_bn(channels, hidden)
        self.conv_dw = _conv_bn(hidden, hidden, 3, groups=hidden)
        self.se = SqueezeExcite(hidden, hidden // 8)
        self.conv_pw2 = _conv_bn(hidden, channels)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """Args: x (Tensor[B, H, W, C]). Returns: Tensor[B, H, W, C]."""
        y = _apply(pointwise_norm, x, self.conv_pw, 'relu')
        y = self.se(_apply(depthwise_norm, y, self.conv_dw, 'relu'))
        if keeps_all(self.drop_path) and may_fold(self.conv_pw2):
            return pointwise_norm(y, *self.conv_pw2.children(), residual=x)
        return x + self.drop_path(_apply(pointwise_norm, y, self.conv_pw2))


def _apply(function: Callable[..., Tensor], x: Tensor, layers: nn.Sequential, activation: str | None = None) -> Tensor:
    """Apply a convolution and its norm by a function, or call them where they are observed or replaced as one."""
    if may_fold(layers):
        return function(x, *layers, activation)
    return ACTIVATIONS[activation](channels_last(layers, x))


class Mlp(nn.Module):
    """Two linear layers with a GELU between them.

    Args:
        channels (int): C.
        hidden (int): Width between the layers.
    """

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels, hidden)
        self.fc2 = nn.Linear(hidden, channels)

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """Args: x (Tensor[..., C]), residual (Tensor[..., C], optional): added. Returns: Tensor[..., C]."""
        return dense(dense(x, self.fc1, 'gelu'), self.fc2, residual=residual)


class VSSBlock(nn.Module):
    """The visual state space block: SS2D and, in its second design, an MLP (VMamba, arXiv 2401.10166, section 4.3).

    Args:
        channels (int): C.
        d_state (int): States per channel.
        ssm_ratio (float): Inner width of the mixer / C.
        mlp_ratio (float): Hidden width of the MLP / C; 0 leaves it out.
        gate (bool): See :class:`mmevm.layers.SS2D`.
        conv_bias (bool): See :class:`mmevm.layers.SS2D`.
        drop_path (float): Stochastic depth rate.
    """

    def __init__(
        self,
        channels: int,
        d_state: int,
        ssm_ratio: float,
        mlp_ratio: float,
        gate: bool,
        conv_bias: bool,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.op = SS2D(channels, d_state, ssm_ratio, gate, conv_bias)
        self.drop_path = DropPath(drop_path)
        self.has_mlp = mlp_ratio > 0
        if self.has_mlp:
            self.norm2 = nn.LayerNorm(channels)
            self.mlp = Mlp(channels, int(mlp_ratio * channels))

    def forward(self, x: Tensor) -> Tensor:
        """Args: x (Tensor[B, H, W, C]). Returns: Tensor[B, H, W, C]."""
        x = add_residual(x, self.op, SS2D, norm_tokens(x, self.norm), self.drop_path)
        return add_residual(x, self.mlp, Mlp, norm_tokens(x, self.norm2), self.drop_path) if self.has_mlp else x
