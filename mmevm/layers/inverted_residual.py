"""Inverted residual block."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmevm.layers.conv_norm import channels_last, depthwise_norm, pointwise
from mmevm.layers.direct import has_hooks, may_fold
from mmevm.layers.drop_path import DropPath
from mmevm.layers.squeeze_excite import SqueezeExcite


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
        y = _relu(_pointwise_norm(x, self.conv_pw), self.conv_pw)
        y = depthwise_norm(y, *self.conv_dw) if may_fold(self.conv_dw) else channels_last(self.conv_dw, y)
        y = self.se(_relu(y, self.conv_dw))
        return x + self.drop_path(_pointwise_norm(y, self.conv_pw2))


def _pointwise_norm(x: Tensor, layers: nn.Sequential) -> Tensor:
    if not may_fold(layers):
        return channels_last(layers, x)
    conv, norm = layers
    return channels_last(norm, pointwise(x, conv))


def _relu(y: Tensor, layers: nn.Sequential) -> Tensor:
    """ReLU of what the layers returned; in place, unless a hook may have kept it, or a tracer would record that."""
    return F.relu(y, inplace=not (torch.jit.is_tracing() or has_hooks(layers, *layers.children())))
