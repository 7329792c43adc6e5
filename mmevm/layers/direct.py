"""Whether a layer may be computed from its weights, without calling it.

The blocks do so where it is faster: two products instead of one whose halves have to be copied, a matrix product in
place of a 1 x 1 convolution, a batch norm folded into a convolution. Where a layer is more than its weights (a hook
observes it, LoRA or a quantized layer has taken its place, its weight is parametrized or pruned) they call it.
"""

import torch
from torch import nn
from torch.nn.modules import module as torch_module

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
    kinds = ('_forward_hooks', '_forward_pre_hooks', '_backward_hooks', '_backward_pre_hooks')
    return any('forward' in vars(m) or any(getattr(m, kind) for kind in kinds) for m in modules)


def is_plain(*modules: nn.Module) -> bool:
    """Return whether the modules are PyTorch's own layers, not subclasses, and nothing is hooked to them."""
    # Parametrizations, FSDP and most adapters give a layer another class; pruning and old weight norm hook it.
    return all(type(m) in _PLAIN for m in modules) and not has_hooks(*modules)


def may_fold(*modules: nn.Module) -> bool:
    """Return whether layers that follow one another may be computed as one.

    As :func:`is_plain`, except that a traced graph is that of inference, whatever observes the tracing.
    """
    return all(type(m) in _PLAIN for m in modules) and (torch.jit.is_tracing() or not has_hooks(*modules))
