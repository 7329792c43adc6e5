"""Strided convolutions: VMamba's later stem and downsampling."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmevm.layers.conv_norm import channels_last_memory


def _halving(in_channels: int, channels: int) -> nn.Conv2d:
    """Kernel 3, stride 2: Tensor[B, in_channels, H, W] -> Tensor[B, channels, ceil(H / 2), ceil(W / 2)]."""
    # Weights in the maps' layout: for a last stage's small map, rearranging torch's costs as much as the convolution.
    return nn.Conv2d(in_channels, channels, 3, stride=2, padding=1).to(memory_format=torch.channels_last)


class ConvStem(nn.Module):
    """Stem of two strided convolutions, each followed by a LayerNorm, with a GELU between them.

    Args:
        in_channels (int): Image channels.
        channels (int): Output channels C; the first convolution has half as many.
    """

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.proj = _halving(in_channels, channels // 2)
        self.norm = nn.LayerNorm(channels // 2)
        self.proj2 = _halving(channels // 2, channels)
        self.norm2 = nn.LayerNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Args: x (Tensor[B, in_channels, H, W]). Returns: Tensor[B, ceil(H / 4), ceil(W / 4), C]."""
        x = self.proj(channels_last_memory(x)).permute(0, 2, 3, 1)  # [B, H / 2, W / 2, C / 2]
        x = F.gelu(self.norm(x)).permute(0, 3, 1, 2)
        return self.norm2(self.proj2(x).permute(0, 2, 3, 1))  # [B, C, H / 4, W / 4] -> [B, H / 4, W / 4, C]


class ConvDownsample(nn.Module):
    """Halves the resolution and doubles the width by a strided convolution and a LayerNorm.

    Args:
        channels (int): Input channels C.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = _halving(channels, 2 * channels)
        self.post_norm = nn.LayerNorm(2 * channels)

    def forward(self, x: Tensor) -> Tensor:
        """Args: x (Tensor[B, H, W, C]). Returns: Tensor[B, ceil(H / 2), ceil(W / 2), 2C]."""
        return self.post_norm(self.conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))
