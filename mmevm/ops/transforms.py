"""Where only plain operations serve: derivatives by ``torch.func`` and in forward mode, and exported programs."""

import torch
from torch import Tensor
from torch._C import _is_tracing
from torch._C._functorch import maybe_current_level as _functorch_level
from torch.autograd import forward_ad
from torch.compiler import is_compiling


def in_transform() -> bool:
    """Return whether a ``torch.func`` transform (``grad``, ``vmap``, ``jvp``, …) runs the code that calls this."""
    # Of the questions that PyTorch answers, the one to which torch.compile has the right answer, too.
    return _functorch_level() is not None


def is_exporting() -> bool:
    """Return whether ``torch.export`` runs, as which ``torch.compile`` would count, too."""
    return torch.compiler.is_exporting() and not torch.compiler.is_dynamo_compiling()


def need_plain_operations(*tensors: Tensor | None) -> bool:
    """Return whether a transform runs, or one of the tensors carries a tangent of forward-mode differentiation."""
    if in_transform():
        return True
    # torch.compile has no forward mode of its own, and need not trace this.
    if is_compiling() or forward_ad._current_level < 0:
        return False
    return any(t is not None and forward_ad.unpack_dual(t).tangent is not None for t in tensors)


def only_pytorch_serves(*tensors: Tensor | None) -> bool:
    """Return whether results must be made of PyTorch's own operations.

    That is so while a graph is traced or exported, and as :func:`need_plain_operations` says.
    """
    # This runs before every pass, and mostly where nothing of the kind is at work.
    if not (is_compiling() or _is_tracing() or forward_ad._current_level >= 0 or _functorch_level() is not None):
        return False
    return torch.jit.is_tracing() or is_exporting() or need_plain_operations(*tensors)
