"""VMamba's block."""

import torch.nn.functional as F
from torch import Tensor, nn

from mmevm.layers.drop_path import DropPath
from mmevm.layers.ss2d import SS2D


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

    def forward(self, x: Tensor) -> Tensor:
        """Args: x (Tensor[..., C]). Returns: Tensor[..., C]."""
        return self.fc2(F.gelu(self.fc1(x)))


class VSSBlock(nn.Module):
    """The visual state space block: SS2D and, in its later design, an MLP (VMamba, arXiv 2401.10166, section 4.3).

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
        x = x + self.drop_path(self.op(self.norm(x)))
        if self.has_mlp:
            x = x + self.drop_path(self.mlp(self.norm2(x)))
        return x
