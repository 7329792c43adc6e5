"""Fused passes over channels-last maps, for inference on the CPU: what lies between a network's matrix products.

Each function has a formula in plain PyTorch, which defines it. Where :func:`available` says so, the extension computes
it in one pass over the map. With gradients enabled, :mod:`mmevm.ops.training` does so where it can, and the formulas
run elsewhere.
"""

import platform
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmevm.ops import extension, training
from mmevm.ops.flops import join_torch_counter
from mmevm.ops.routes import Route, flatten
from mmevm.ops.training import ACTIVATION_INDEX, ACTIVATIONS
from mmevm.ops.transforms import only_pytorch_serves

_KERNELS = ((3, 3), (1, 4))
_DTYPES = (torch.float32, torch.bfloat16)
_TYPES = (Tensor, nn.Parameter)


class NormStatistics(NamedTuple):
    """A batch norm with fixed statistics: ``(x - mean) / sqrt(var + eps) * weight + bias``.

    Attributes:
        mean, var, weight, bias (Tensor[C]): Per channel.
        eps (float): Added to the variance.
    """

    mean: Tensor
    var: Tensor
    weight: Tensor
    bias: Tensor
    eps: float


def _product_dtypes() -> tuple[torch.dtype, ...]:
    """Return the dtypes of the extension's own products: they were measured on x86 only."""
    if platform.machine() not in ('x86_64', 'AMD64'):
        return ()
    has_amx = getattr(torch.cpu, '_is_amx_tile_supported', lambda: False)()  # from torch 2.5 on
    return (torch.float32,) if has_amx else _DTYPES  # PyTorch's in bfloat16 use AMX


_PRODUCTS = _product_dtypes()


def available(x: Tensor, *others: Tensor | None) -> bool:
    """Return whether the extension's passes serve a map and what is computed with it.

    They serve contiguous tensors on the CPU, maps in float32 or bfloat16 and parameters in the map's dtype or float32,
    without gradients, and outside of tracing, exporting and ``torch.func``, whose results must be made of PyTorch's own
    operations.
    """
    dtype = x.dtype
    if (
        torch.is_grad_enabled()
        or extension.LOAD_ERROR is not None
        or dtype not in _DTYPES
        or only_pytorch_serves(x, *others)
    ):
        return False
    for t in (x, *others):  # without calls in between: this runs before every pass
        if t is None:
            continue
        if type(t) not in _TYPES or not t.is_cpu or not t.is_contiguous():
            return False
        if t.dtype is not dtype and t.dtype is not torch.float32:
            return False
    return True


def serves(before: tuple[int, int], after: tuple[int, int]) -> bool:
    """Return whether there is a pass for kernels that cover so many rows and columns before and after their cell."""
    return (before[0] + 1 + after[0], before[1] + 1 + after[1]) in _KERNELS


def _operators() -> torch._ops._OpNamespace:
    if not torch.compiler.is_compiling():
        join_torch_counter('mmevm')
    return torch.ops.mmevm


def fold(
    weight: Tensor, bias: Tensor | None, norm: NormStatistics | None = None, flip: bool = False
) -> tuple[Tensor, Tensor | None]:
    """Return kernels Tensor[C, 1, rows, columns] and a bias Tensor[C] with the flip and the batch norm folded in.

    The arguments are those of :func:`depthwise_conv`.
    """
    if weight.dim() == 3:
        weight = weight.unsqueeze(2)
    if flip:
        weight = weight.flip(2, 3)
    if norm is None:
        return weight, bias
    scale = norm.weight * torch.rsqrt(norm.var + norm.eps)
    shift = norm.bias - norm.mean * scale
    return weight * scale.view(-1, 1, 1, 1), shift if bias is None else torch.addcmul(shift, bias, scale)


def depthwise_conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    norm: NormStatistics | None = None,
    activation: str | None = None,
    before: tuple[int, int] = (1, 1),
    after: tuple[int, int] = (1, 1),
    flip: bool = False,
) -> Tensor:
    """Depthwise convolution of stride 1 that keeps the map's size, batch norm and activation.

    Args:
        x (Tensor[B, H, W, C]): Map.
        weight (Tensor[C, 1, rows, columns] or Tensor[C, 1, columns]): Kernels; those of three dimensions have one row.
        bias (Tensor[C], optional): Bias of the convolution.
        norm (NormStatistics, optional): Batch norm behind it; it is folded into the kernels.
        activation (str, optional): 'relu', 'silu' or 'gelu'.
        before (tuple[int, int]): Rows above and columns before the present cell that the kernel covers.
        after (tuple[int, int]): Rows below and columns behind it.
        flip (bool): Reads the kernels from their last tap to the first.

    Returns:
        Tensor[B, H, W, C].
    """
    if serves(before, after) and available(x, weight, bias, *(norm[:4] if norm else ())):
        tensors, eps = (norm[:4], norm.eps) if norm else ((None,) * 4, 0.0)
        return _operators().depthwise_conv(x, weight, bias, *tensors, eps, *before, ACTIVATION_INDEX[activation], flip)
    if norm is None and before == after == (1, 1) and not flip and training.available(x, weight, bias):
        return training.depthwise_activation(x, weight, bias, activation)
    weight, bias = fold(weight, bias, norm, flip)
    # Padded at both ends by the longer side, so that one convolution serves; what is too much is cut off.
    padding = (max(before[0], after[0]), max(before[1], after[1]))
    y = F.conv2d(x.permute(0, 3, 1, 2), weight, bias, padding=padding, groups=weight.shape[0]).permute(0, 2, 3, 1)
    if before != after:
        y = y[:, padding[0] - before[0] :, padding[1] - before[1] :][:, : x.shape[1], : x.shape[2]]
    return ACTIVATIONS[activation](y)


def linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    norm: NormStatistics | None = None,
    activation: str | None = None,
    residual: Tensor | None = None,
) -> Tensor:
    """Return ``activation(norm(x @ weight.T + bias)) + residual``: a linear layer and what follows it, for many tokens.

    Args:
        x (Tensor[..., C_in]): Tokens, or a map.
        weight (Tensor[C_out, C_in]): Weights, or those of a convolution of kernel size 1.
        bias (Tensor[C_out], optional): Bias.
        norm (NormStatistics, optional): Batch norm behind it, of a map [B, H, W, C_out].
        activation (str, optional): 'relu', 'silu' or 'gelu'.
        residual (Tensor[..., C_out], optional): What is added.

    Returns:
        Tensor[..., C_out].
    """
    if _serves_linear(x, weight, residual) and available(x, weight, bias, *(norm[:4] if norm else ()), residual):
        tensors, eps = (norm[:4], norm.eps) if norm else ((None,) * 4, 0.0)
        return _operators().linear(x, weight, bias, *tensors, eps, ACTIVATION_INDEX[activation], residual)
    y = F.linear(x, weight.flatten(1), bias)
    if norm is not None:
        return batch_norm_(y, norm, activation, residual)
    y = ACTIVATIONS[activation](y)
    return y if residual is None else residual + y


def _serves_linear(x: Tensor, weight: Tensor, residual: Tensor | None) -> bool:
    same = x.dtype == weight.dtype and (residual is None or residual.dtype == x.dtype)
    # Autocast computes products in half precision.
    return same and x.dtype in _PRODUCTS and not torch.is_autocast_enabled('cpu')


def batch_norm_(
    y: Tensor, norm: NormStatistics, activation: str | None = None, residual: Tensor | None = None
) -> Tensor:
    """Return ``activation(norm(y)) + residual``. It may overwrite ``y``.

    Args:
        y (Tensor[B, H, W, C]): Map that nothing else holds.
        norm (NormStatistics): Batch norm.
        activation (str, optional): 'relu', 'silu' or 'gelu'.
        residual (Tensor[B, H, W, C], optional): Map that is added.

    Returns:
        Tensor[B, H, W, C].
    """
    if available(y, *norm[:4], residual) and (residual is None or residual.dtype == y.dtype):
        _operators().batch_norm_(y, *norm, ACTIVATION_INDEX[activation], residual)
        return y
    mean, var, weight, bias, eps = norm
    y = F.batch_norm(y.permute(0, 3, 1, 2), mean, var, weight, bias, eps=eps).permute(0, 2, 3, 1)
    y = ACTIVATIONS[activation](y)
    return y if residual is None else residual + y


def gated_norm_(y: Tensor, gate: Tensor, norm: nn.LayerNorm) -> Tensor:
    """Return ``norm(y) * silu(gate)``. It may overwrite ``y``.

    Args:
        y (Tensor[B, H, W, C]): Map that nothing else holds.
        gate (Tensor[B, H, W, C]): What gates it.
        norm (nn.LayerNorm): Over C, with weight and bias.

    Returns:
        Tensor[B, H, W, C].
    """
    if available(y, gate, norm.weight, norm.bias) and gate.dtype == y.dtype:
        _operators().gated_norm_(y, gate, norm.weight, norm.bias, norm.eps)
        return y
    if training.available(y, gate, norm.weight, norm.bias):
        return training.norm_gate(y, gate, norm)
    return norm(y) * F.silu(gate)


def layer_norm(x: Tensor, norm: nn.LayerNorm) -> Tensor:
    """Return ``norm(x)``. Args: x (Tensor[..., C]), norm (nn.LayerNorm): over C. Returns: Tensor[..., C]."""
    # A compiler fuses it with its neighbours.
    serves = norm.weight is not None and norm.bias is not None and not torch.compiler.is_compiling()
    if serves and available(x, norm.weight, norm.bias):
        return _operators().layer_norm(x, norm.weight, norm.bias, norm.eps)
    return norm(x)


def map_mean(x: Tensor) -> Tensor:
    """Return the mean of each image. Args: x (Tensor[B, H, W, C]). Returns: Tensor[B, 1, 1, C]."""
    return _operators().map_mean(x) if available(x) else x.mean(dim=(1, 2), keepdim=True)


def norm_mean(x: Tensor, norm: nn.LayerNorm) -> Tensor:
    """Return the mean of ``norm(x)`` over each image.

    Args:
        x (Tensor[B, H, W, C]): Map.
        norm (nn.LayerNorm): Over C, with weight and bias.

    Returns:
        Tensor[B, 1, 1, C].
    """
    if available(x, norm.weight, norm.bias):
        return _operators().norm_mean(x, norm.weight, norm.bias, norm.eps)
    if training.available(x, norm.weight, norm.bias):
        return training.norm_mean(x, norm)
    return norm(x).mean(dim=(1, 2), keepdim=True)


def channel_gate(mean: Tensor, reduce: nn.Linear | nn.Conv2d, expand: nn.Linear | nn.Conv2d, activation: str) -> Tensor:
    """Return ``sigmoid(expand(activation(reduce(mean))))``: squeeze and excitation's gate.

    Args:
        mean (Tensor[..., C]): Means over images.
        reduce (nn.Linear | nn.Conv2d): From C values to fewer; a convolution has kernel size 1.
        expand (nn.Linear | nn.Conv2d): Back to C values.
        activation (str): 'relu', 'silu' or 'gelu'.

    Returns:
        Tensor[..., C] in (0, 1).
    """
    weights = reduce.weight, expand.weight
    if available(mean, *weights, reduce.bias, expand.bias) and all(weight.dtype == mean.dtype for weight in weights):
        gate = _operators().channel_gate
        return gate(mean, weights[0], reduce.bias, ACTIVATION_INDEX[activation], weights[1], expand.bias)
    hidden = ACTIVATIONS[activation](F.linear(mean, weights[0].flatten(1), reduce.bias))
    return torch.sigmoid(F.linear(hidden, weights[1].flatten(1), expand.bias))


def scaled_sum_(a: Tensor, scale_a: Tensor, b: Tensor, scale_b: Tensor, x: Tensor) -> Tensor:
    """Return ``x + a * scale_a + b * scale_b``. It may overwrite ``a``.

    Args:
        a (Tensor[B, H, W, C]): Map that nothing else holds.
        scale_a (Tensor[B, 1, 1, C]): Scales of its channels.
        b (Tensor[B, H, W, C]): Map.
        scale_b (Tensor[B, 1, 1, C]): Scales of its channels.
        x (Tensor[B, H, W, C]): Map.

    Returns:
        Tensor[B, H, W, C].
    """
    if available(a, scale_a, b, scale_b, x) and a.dtype == b.dtype == x.dtype:
        _operators().scaled_sum_(a, x, scale_a, b, scale_b)
        return a
    if training.available(x, a, scale_a, b, scale_b):
        return training.blend(x, a, scale_a, b, scale_b)
    return torch.addcmul(torch.addcmul(x, a, scale_a), b, scale_b)


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Root mean square norm, as ``torch.nn.functional.rms_norm`` over the last dimension.

    Args:
        x (Tensor[..., C]): Tokens.
        weight (Tensor[C]): Scales.
        eps (float): Added to the mean square.

    Returns:
        Tensor[..., C].
    """
    if available(x, weight):
        return _operators().rms_norm(x, weight, eps)
    return F.rms_norm(x, weight.shape, weight, eps)


def gated_mean_(a: Tensor, b: Tensor, gate: Tensor) -> Tensor:
    """Return ``(a + b) / 2 * silu(gate)``, all of one shape. It may overwrite ``a``, which nothing else may hold."""
    if available(a, b, gate) and a.dtype == b.dtype == gate.dtype:
        _operators().gated_mean_(a, b, gate)
        return a
    return (a + b) * F.silu(gate) / 2


def projected_scan(
    x: Tensor,
    x_proj: Tensor,
    dt_weight: Tensor,
    dt_bias: Tensor,
    A_logs: Tensor,
    Ds: Tensor,
    routes: list[Route],
    step: int = 1,
) -> Tensor:
    """:func:`mmevm.ops.visual_scan` together with the projection of its cells. Only where :func:`available` says so.

    A parameter of one set may leave out the dimension of the sets.

    Args:
        x (Tensor[B, H, W, D]): Feature map.
        x_proj (Tensor[P, R + 2N, D]): Sets of weights of the projection.
        dt_weight (Tensor[K, D, R]), dt_bias (Tensor[K, D]), Ds (Tensor[K, D]): As of :func:`mmevm.ops.visual_scan`.
        A_logs (Tensor[K, D, N]): Logarithms of ``-A``.
        routes (list[Route]): The routes; ``projection`` names the set that projects the cells of a route.
        step (int): Distance between neighbouring cells of a route.

    Returns:
        Tensor[B, H, W, D].
    """
    operator = _operators().projected_visual_scan
    return operator(x, x_proj, dt_weight, dt_bias, A_logs, Ds, step, flatten(routes))


def _register_fakes() -> None:
    like_first = lambda x, *_: torch.empty_like(x, memory_format=torch.contiguous_format)  # noqa: E731
    for name in ('channel_gate', 'depthwise_conv', 'layer_norm', 'projected_visual_scan', 'rms_norm'):
        torch.library.register_fake(f'mmevm::{name}', like_first)
    torch.library.register_fake('mmevm::linear', lambda x, weight, *_: x.new_empty(*x.shape[:-1], weight.shape[0]))
    for name in ('map_mean', 'norm_mean'):
        torch.library.register_fake(f'mmevm::{name}', lambda x, *_: x.new_empty(x.shape[0], 1, 1, x.shape[3]))
    for name in ('batch_norm_', 'gated_norm_', 'gated_mean_', 'scaled_sum_'):
        torch.library.register_fake(f'mmevm::{name}', lambda *_: None)


if extension.LOAD_ERROR is None:
    _register_fakes()
