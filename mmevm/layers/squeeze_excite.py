"""Channel attention (squeeze-and-excitation, arXiv 1709.01507), in the two forms of EfficientVMamba."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmevm.layers.conv_norm import pointwise


class BranchAttention(nn.Module):
    """Channel attention of the EVSS block. One module serves both of its branches.

    The gate is computed from the LayerNorm-ed map; the block multiplies the map itself with it.

    Args:
        channels (int): C.
        reduction (int): The hidden width is C / reduction.
    """

    def __init__(self, channels: int, reduction: int = 8) -> None:
        super().__init__()
        hidden = int(channels / reduction)
        self.norm = nn.LayerNorm(channels)
        self.global_reduce = nn.Linear(channels, hidden)
        self.channel_select = nn.Linear(hidden, channels)

    def forward(self, x: Tensor) -> Tensor:
        """The gate. Args: x (Tensor[B, H, W, C]). Returns: Tensor[B, 1, 1, C] in (0, 1)."""
        squeezed = self.norm(x).mean(dim=(1, 2), keepdim=True)
        return torch.sigmoid(self.channel_select(F.gelu(self.global_reduce(squeezed))))


class SqueezeExcite(nn.Module):
    """Channel attention of the inverted residual, on channels-last maps.

    Args:
        channels (int): C.
        hidden (int): Width between the two 1 x 1 convolutions.
    """

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.conv_reduce = nn.Conv2d(channels, hidden, 1)
        self.conv_expand = nn.Conv2d(hidden, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Args: x (Tensor[B, H, W, C]). Returns: Tensor[B, H, W, C]."""
        squeezed = x.mean(dim=(1, 2), keepdim=True)
        return x * torch.sigmoid(pointwise(F.relu(pointwise(squeezed, self.conv_reduce)), self.conv_expand))
