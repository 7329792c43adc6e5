"""Convolutions with norms, squeeze and excitation, root mean square norms, stochastic depth."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules import module as torch_module
from torch.nn.modules.batchnorm import _BatchNorm

from mmevm.ops import training
from mmevm.ops.passes import (
    NormStatistics,
    channel_gate,
    depthwise_conv,
    layer_norm,
    linear,
    map_mean,
    norm_mean,
    rms_norm,
)
from mmevm.ops.training import ACTIVATIONS
from mmevm.ops.transforms import in_transform

_PLAIN = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.BatchNorm2d, nn.SyncBatchNorm, nn.LayerNorm, nn.Sequential)


def has_hooks(*modules: nn.Module) -> bool:
    """Return whether anything but the caller sees what one of the modules returns, or changes it."""
    if (
        torch_module._global_forward_hooks
        or torch_module._global_forward_pre_hooks
        or torch_module._global_backward_hooks
        or torch_module._global_backward_pre_hooks
    ):
        return True
    for module in modules:
        own = module.__dict__  # looked up by hand: this runs for every layer of every forward pass
        if 'forward' in own or own['_forward_hooks'] or own['_forward_pre_hooks']:
            return True
        if own['_backward_hooks'] or own['_backward_pre_hooks']:
            return True
    return False


def is_plain(*modules: nn.Module) -> bool:
    """Return whether the modules are PyTorch's own layers, not subclasses, and nothing is hooked to them."""
    # Parametrizations, FSDP and most adapters give a layer another class; pruning and old weight norm hook it.
    return _have_plain_types(modules) and not has_hooks(*modules)


def _have_plain_types(modules: tuple[nn.Module, ...]) -> bool:
    for module in modules:
        if type(module) not in _PLAIN:
            return False
    return True


def may_fold(*modules: nn.Module) -> bool:
    """Return whether layers that follow one another may be computed as one.

    As :func:`is_plain`, except that a traced graph is that of inference, whatever observes the tracing.
    """
    return _have_plain_types(modules) and (not has_hooks(*modules) or torch.jit.is_tracing())


def pointwise(x: Tensor, conv: nn.Module) -> Tensor:
    """Apply a 1 x 1 convolution to a channels-last map, as a matrix product.

    Args:
        x (Tensor[B, H, W, C_in]): Map.
        conv (nn.Module): Convolution of kernel size 1, or what replaces it.

    Returns:
        Tensor[B, H, W, C_out].
    """
    return linear(x, conv.weight, conv.bias) if is_plain(conv) else channels_last(conv, x)


def dense(x: Tensor, layer: nn.Module, activation: str | None = None, residual: Tensor | None = None) -> Tensor:
    """Apply a linear layer, or what replaces it, and an activation, and add a residual.

    Args:
        x (Tensor[..., C_in]): Tokens, or a map.
        layer (nn.Module): Linear layer.
        activation (str, optional): See :func:`mmevm.ops.passes.linear`.
        residual (Tensor[..., C_out], optional): What is added.

    Returns:
        Tensor[..., C_out].
    """
    if is_plain(layer):
        return linear(x, layer.weight, layer.bias, None, activation, residual)
    y = ACTIVATIONS[activation](layer(x))
    return y if residual is None else residual + y


def depthwise(x: Tensor, conv: nn.Module) -> Tensor:
    """Apply a 3 x 3 depthwise convolution, or what replaces it, to Tensor[B, H, W, C]. Returns: Tensor[B, H, W, C]."""
    return depthwise_conv(x, conv.weight, conv.bias) if is_plain(conv) else channels_last(conv, x)


def norm_tokens(x: Tensor, norm: nn.Module) -> Tensor:
    """Apply a LayerNorm, or what replaces it. Args: x (Tensor[..., C]). Returns: Tensor[..., C]."""
    return layer_norm(x, norm) if is_plain(norm) else norm(x)


def channels_last(module: nn.Module, x: Tensor) -> Tensor:
    """Call a layer of channels-first maps with Tensor[B, H, W, C_in]. Returns: Tensor[B, H, W, C_out]."""
    return module(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


def channels_last_memory(image: Tensor) -> Tensor:
    """Return Tensor[B, C, H, W] in channels-last memory format, in which the convolutions are faster."""
    # torch.func.vmap knows no other layout than the plain one.
    return image if in_transform() else image.contiguous(memory_format=torch.channels_last)


def fixed_statistics(norm: nn.Module) -> NormStatistics | None:
    """Return a batch norm's statistics if they are fixed: in evaluation mode, affine, and tracked."""
    if norm.training or not isinstance(norm, _BatchNorm) or norm.running_var is None or not norm.affine:
        return None
    return NormStatistics(norm.running_mean, norm.running_var, norm.weight, norm.bias, norm.eps)


def depthwise_norm(x: Tensor, conv: nn.Module, norm: nn.Module, activation: str | None = None) -> Tensor:
    """Apply a 3 x 3 depthwise convolution, its batch norm and an activation.

    With fixed statistics the norm is folded into the few weights of the convolution, which saves a pass over the map.

    Args:
        x (Tensor[B, H, W, C]): Map.
        conv (nn.Module): Depthwise convolution, or what replaces it.
        norm (nn.Module): Batch norm, or what replaces it (a synchronised one, an identity).
        activation (str, optional): See :func:`mmevm.ops.passes.depthwise_conv`.

    Returns:
        Tensor[B, H, W, C].
    """
    statistics = fixed_statistics(norm) if may_fold(conv, norm) else None
    if statistics:
        return depthwise_conv(x, conv.weight, conv.bias, statistics, activation)
    y = depthwise(x, conv) if norm.training else channels_last(conv, x)
    return _normalise(y, norm, activation, conv)


def pointwise_norm(
    x: Tensor,
    conv: nn.Module,
    norm: nn.Module,
    activation: str | None = None,
    residual: Tensor | None = None,
) -> Tensor:
    """Apply a 1 x 1 convolution, its batch norm and an activation, and add a residual.

    Args:
        x (Tensor[B, H, W, C_in]): Map.
        conv (nn.Module): Pointwise convolution, or what replaces it.
        norm (nn.Module): As of :func:`depthwise_norm`.
        activation (str, optional): As of :func:`depthwise_norm`.
        residual (Tensor[B, H, W, C_out], optional): Map that is added.

    Returns:
        Tensor[B, H, W, C_out].
    """
    statistics = fixed_statistics(norm) if may_fold(conv, norm) else None
    if statistics:
        return linear(x, conv.weight, conv.bias, statistics, activation, residual)
    y = _normalise(pointwise(x, conv), norm, activation, conv)
    return y if residual is None else residual + y


def _normalise(y: Tensor, norm: nn.Module, activation: str | None, conv: nn.Module) -> Tensor:
    """Apply the norm behind a convolution, and the activation, to Tensor[B, H, W, C]."""
    if may_fold(conv, norm) and training.norm_serves(norm, y):
        return training.batch_norm(y, norm, activation)
    y = norm(y.permute(0, 3, 1, 2))
    # A ReLU in place, unless a hook may have kept the map, or a tracer would record that; and before the map becomes a
    # view, whose gradients would be copied.
    in_place = activation == 'relu' and not (torch.jit.is_tracing() or has_hooks(conv, norm))
    return (F.relu_(y) if in_place else ACTIVATIONS[activation](y)).permute(0, 2, 3, 1)


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
        """Compute the gate. Args: x (Tensor[B, H, W, C]). Returns: Tensor[B, 1, 1, C] in (0, 1)."""
        squeezed = norm_mean(x, self.norm) if is_plain(self.norm) else self.norm(x).mean(dim=(1, 2), keepdim=True)
        if is_plain(self.global_reduce, self.channel_select):
            return channel_gate(squeezed, self.global_reduce, self.channel_select, 'gelu')
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
        fused = training.available(x)
        # The gradient of a mean would be a map in memory, that of a sum is a view.
        mean = x.sum(dim=(1, 2), keepdim=True) / (x.shape[1] * x.shape[2]) if fused else map_mean(x)
        if is_plain(self.conv_reduce, self.conv_expand):
            gate = channel_gate(mean, self.conv_reduce, self.conv_expand, 'relu')
        else:
            gate = torch.sigmoid(pointwise(F.relu(pointwise(mean, self.conv_reduce)), self.conv_expand))
        return training.blend(None, x, gate) if fused and training.available(gate) else x * gate


class RMSNorm(nn.Module):
    """Scales tokens to a root mean square of one (arXiv 1910.07467), in float32 whatever the model's precision.

    Args:
        channels (int): C.
        eps (float): Added to the mean square.
    """

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Args: x (Tensor[..., C]). Returns: Tensor[..., C], in the weight's dtype."""
        weight = self.weight
        x = x.to(torch.promote_types(x.dtype, torch.float32))
        return rms_norm(x, weight.to(x.dtype), self.eps).to(weight.dtype)


class DropPath(nn.Module):
    """Drops the residual branch of samples while training (stochastic depth, arXiv 1603.09382).

    Args:
        drop_prob (float): Probability of dropping a sample's branch, in [0, 1).
    """

    def __init__(self, drop_prob: float = 0.0) -> None:
        super().__init__()
        if not 0 <= drop_prob < 1:
            raise ValueError(f'`drop_prob` must be in [0, 1), got {drop_prob}')
        self.drop_prob = drop_prob

    def forward(self, x: Tensor) -> Tensor:
        """Args: x (Tensor[B, ...]). Returns: Tensor[B, ...], kept samples scaled by 1 / (1 - drop_prob)."""
        if self.drop_prob == 0 or not self.training:
            return x
        keep = 1 - self.drop_prob
        mask = x.new_empty(x.shape[0], *[1] * (x.dim() - 1)).bernoulli_(keep)
        return x * mask.div_(keep)

    def extra_repr(self) -> str:
        return f'drop_prob={self.drop_prob:.3g}'


def keeps_all(drop_path: nn.Module) -> bool:
    """Return whether stochastic depth drops nothing, and nobody observes it."""
    return not (drop_path.training or has_hooks(drop_path))


def add_residual(x: Tensor, branch: nn.Module, kind: type, y: Tensor, drop_path: nn.Module) -> Tensor:
    """Return ``x + drop_path(branch(y))``; a branch that nobody observes adds ``x`` itself, in its last product.

    Args:
        x (Tensor[..., C]): What is added to.
        branch (nn.Module): The residual branch.
        kind (type): The class of branches that take ``residual``; what replaces one may not.
        y (Tensor[..., C]): The branch's input.
        drop_path (nn.Module): Stochastic depth.

    Returns:
        Tensor[..., C].
    """
    if keeps_all(drop_path) and type(branch) is kind and not has_hooks(branch):
        return branch(y, x)
    return x + drop_path(branch(y))
