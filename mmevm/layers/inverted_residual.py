"""Inverted residual block."""

from torch import Tensor, nn

from mmevm.layers.drop_path import DropPath
from mmevm.layers.squeeze_excite import SqueezeExcite


def _conv_bn(in_channels: int, channels: int, kernel_size: int = 1, groups: int = 1, relu: bool = True) -> nn.Sequential:
    conv = nn.Conv2d(in_channels, channels, kernel_size, padding=kernel_size // 2, groups=groups, bias=False)
    layers = [conv, nn.BatchNorm2d(channels)]
    return nn.Sequential(*layers, nn.ReLU(inplace=True)) if relu else nn.Sequential(*layers)


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
        self.conv_pw2 = _conv_bn(hidden, channels, relu=False)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """Args: x (Tensor[B, H, W, C]). Returns: Tensor[B, H, W, C]."""
        y = x.permute(0, 3, 1, 2)  # [B, H, W, C] -> [B, C, H, W], channels-last in memory
        y = self.conv_pw2(self.se(self.conv_dw(self.conv_pw(y))))
        return x + self.drop_path(y.permute(0, 2, 3, 1))
