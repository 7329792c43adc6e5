"""Convolutions followed by batch norm, on channels-last maps."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmevm.layers.direct import is_plain, may_fold
from mmevm.ops.transforms import in_transform


def pointwise(x: Tensor, conv: nn.Conv2d) -> Tensor:
    """A 1 x 1 convolution as the matrix product that it is on a channels-last map.

    Args:
        x (Tensor[B, H, W, C_in]): Map.
        conv (nn.Conv2d): Convolution of kernel size 1.

    Returns:
        Tensor[B, H, W, C_out].
    """
    return F.linear(x, conv.weight.flatten(1), conv.bias) if is_plain(conv) else channels_last(conv, x)


def depthwise(x: Tensor, weight: Tensor, bias: Tensor | None, padding: int | tuple[int, int] = 1) -> Tensor:
    """A depthwise convolution, by default 3 x 3, of a channels-last map: Tensor[B, H, W, C] -> Tensor[B, H, W, C]."""
    y = F.conv2d(x.permute(0, 3, 1, 2), weight, bias, padding=padding, groups=weight.shape[0])
    return y.permute(0, 2, 3, 1)


def channels_last(module: nn.Module, x: Tensor) -> Tensor:
    """Calls a layer of channels-first maps with Tensor[B, H, W, C_in]. Returns: Tensor[B, H, W, C_out]."""
    return module(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


def channels_last_memory(image: Tensor) -> Tensor:
    """Lays Tensor[B, C, H, W] out with its channels last, for which the convolutions are faster, and returns it."""
    # torch.func.vmap knows no other layout than the plain one.
    return image if in_transform() else image.contiguous(memory_format=torch.channels_last)


def depthwise_norm(x: Tensor, conv: nn.Conv2d, norm: nn.Module) -> Tensor:
    """A 3 x 3 depthwise convolution and its batch norm.

    With fixed statistics the norm is folded into the few weights of the convolution, which saves a pass over the map.

    Args:
        x (Tensor[B, H, W, C]): Map.
        conv (nn.Conv2d): Depthwise convolution.
        norm (nn.Module): Batch norm, or what replaces it (a synchronised one, an identity).

    Returns:
        Tensor[B, H, W, C].
    """
    fixed = not norm.training and isinstance(norm, _BatchNorm) and norm.running_var is not None
    if not (fixed and norm.affine and may_fold(conv, norm)):
        return channels_last(norm, channels_last(conv, x))
    scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
    shift = norm.bias - norm.running_mean * scale
    if conv.bias is not None:
        shift = torch.addcmul(shift, conv.bias, scale)
    return depthwise(x, conv.weight * scale.view(-1, 1, 1, 1), shift)
