"""Where only plain operations serve: derivatives by ``torch.func`` and in forward mode, and exported programs."""

import torch
from torch import Tensor
from torch.autograd import forward_ad


def in_transform() -> bool:
    """Return whether a ``torch.func`` transform (``grad``, ``vmap``, ``jvp``, …) runs the code that calls this."""
    # Of the questions that PyTorch answers, the one to which torch.compile has the right answer, too.
    return torch._C._functorch.maybe_current_level() is not None


def is_exporting() -> bool:
    """Return whether ``torch.export`` runs, as which ``torch.compile`` would count, too."""
    return torch.compiler.is_exporting() and not torch.compiler.is_dynamo_compiling()


def need_plain_operations(*tensors: Tensor | None) -> bool:
    """Return whether a transform runs, or one of the tensors carries a tangent of forward-mode differentiation."""
    if in_transform():
        return True
    # torch.compile has no forward mode of its own, and need not trace this.
    if torch.compiler.is_compiling() or forward_ad._current_level < 0:
        return False
    return any(t is not None and forward_ad.unpack_dual(t).tangent is not None for t in tensors)
