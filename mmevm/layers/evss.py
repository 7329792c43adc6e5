"""The efficient visual state space block."""

import torch
from torch import Tensor, nn

from mmevm.layers.conv_norm import channels_last, depthwise_norm, pointwise
from mmevm.layers.direct import may_fold
from mmevm.layers.drop_path import DropPath
from mmevm.layers.es2d import ES2D
from mmevm.layers.squeeze_excite import BranchAttention


class EVSSBlock(nn.Module):
    """A global branch (ES2D) and a local one (convolution), fused by channel attention (arXiv 2403.09977, section 4.2).

    Args:
        channels (int): C.
        step_size (int): Step of the atrous scan.
        fusion (bool): Without it the block is the global branch alone, as in the paper's Table 5.
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
        y = self.norm(x)
        mixed = self.op(y)
        if not self.fusion:
            return x + self.drop_path(mixed)
        local = self._convolve(y)
        # x + drop_path(gate * mixed + gate * local), with the drop applied to the gates: two passes over the map.
        gates = self.drop_path(torch.cat([self.se(mixed), self.se(local)], dim=1))  # [B, 2, 1, C]
        return torch.addcmul(torch.addcmul(x, mixed, gates[:, :1]), local, gates[:, 1:])

    def _convolve(self, y: Tensor) -> Tensor:
        if not may_fold(self.conv_branch):
            return channels_last(self.conv_branch, y)
        depthwise, norm, activation, conv = self.conv_branch
        return pointwise(activation(depthwise_norm(y, depthwise, norm)), conv)
