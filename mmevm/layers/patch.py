"""Stems and downsampling."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmevm.layers.basic import channels_last_memory, dense, norm_tokens


class PatchEmbed(nn.Module):
    """Stem: convolution and LayerNorm.

    Args:
        in_channels (int): Image channels.
        channels (int): Output channels C.
        patch_size (int): Kernel size P.
        stride (int, optional): Distance S between neighbouring patches; by default they do not overlap.
        norm (bool): Whether a LayerNorm follows.
    """

    def __init__(
        self, in_channels: int, channels: int, patch_size: int = 4, stride: int | None = None, norm: bool = True
    ) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_channels, channels, patch_size, stride or patch_size)
        self.norm = nn.LayerNorm(channels) if norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Args: x (Tensor[B, in_channels, H, W]). Returns: Tensor[B, (H - P) // S + 1, (W - P) // S + 1, C]."""
        x = self.proj(channels_last_memory(x))
        return norm_tokens(x.permute(0, 2, 3, 1), self.norm)  # [B, C, H, W] -> [B, H, W, C]


class PatchMerging(nn.Module):
    """Halves the resolution and doubles the width (Swin Transformer, arXiv 2103.14030, section 3.1).

    Odd maps are padded with zeros at the bottom and right.

    Args:
        channels (int): Input channels C.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * channels)
        self.reduction = nn.Linear(4 * channels, 2 * channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Args: x (Tensor[B, H, W, C]). Returns: Tensor[B, ceil(H / 2), ceil(W / 2), 2C]."""
        H, W = x.shape[1:3]
        # A traced graph pads always, by zero rows or one, so that it serves odd and even maps.
        if torch.jit.is_tracing() or H % 2 or W % 2:
            x = F.pad(x, (0, 0, 0, W % 2, 0, H % 2))
        # The checkpoints' channel order is (0, 0), (1, 0), (0, 1), (1, 1) of (row, column): the column varies slowest.
        x = x.unflatten(2, (-1, 2)).unflatten(1, (-1, 2))  # [B, H/2, 2, W/2, 2, C]
        x = x.permute(0, 1, 3, 4, 2, 5).flatten(3)  # [B, H/2, W/2, 4C]
        return dense(norm_tokens(x, self.norm), self.reduction)


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
        x = F.gelu(norm_tokens(x, self.norm)).permute(0, 3, 1, 2)
        return norm_tokens(self.proj2(x).permute(0, 2, 3, 1), self.norm2)


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
        return norm_tokens(self.conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1), self.post_norm)
