"""Parameters, FLOPs and activations of a model, counted without computing anything.

The rules are fvcore's (its port is ``mmengine.analysis``), which the field's tables use: one multiply-add is one FLOP;
convolutions, matrix products, norms, bilinear resizing and adaptive pooling count, activation functions and
element-wise sums do not. A selective scan counts ``9 N + 1`` per token and channel (N states; the 1 is the skip
connection), and the projection of the time step, which the operator does on its way, R per token and channel.

The model runs on the meta device where it can: shapes alone, so that any image size takes seconds and no memory.
"""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from mmevm.ops import extension

_aten = torch.ops.aten


@dataclass(frozen=True)
class Complexity:
    """What a forward pass costs.

    Attributes:
        params (int): Parameters.
        flops (int): Multiply-adds and what else the module's rules count.
        activations (int): Elements that convolutions, matrix products and scans write.
        idle (tuple[str, ...]): Parts of a model whose parameters are counted and which did not run.
    """

    params: int
    flops: int
    activations: int
    idle: tuple[str, ...] = ()

    def __add__(self, other: Complexity) -> Complexity:
        return Complexity(
            self.params + other.params,
            self.flops + other.flops,
            self.activations + other.activations,
            self.idle + other.idle,
        )


def _norm(per_element: int, affine: int) -> Callable[..., int]:
    """A norm's cost: ``per_element`` for statistics and scaling, one more where it has a weight."""
    return lambda args, out: args[0].numel() * (per_element + (args[affine] is not None))


def _of_output(per_element: int) -> Callable[..., int]:
    return lambda args, out: out.numel() * per_element


_ELEMENTWISE: dict[Any, Callable[[tuple, Any], int]] = {
    _aten.native_layer_norm: _norm(4, affine=2),
    _aten.native_group_norm: _norm(4, affine=1),
    # Evaluation mode: the statistics are given.
    _aten.native_batch_norm: _norm(1, affine=1),
    _aten._native_batch_norm_legit_no_training: _norm(1, affine=1),
    _aten.upsample_bilinear2d: _of_output(4),
    _aten._adaptive_avg_pool2d: lambda args, out: args[0].numel(),
}


def _visual_scan(args: tuple, out: Any) -> int:
    x, _, dt_weight, _, A, Ds, step, routes = args[:8]
    B, H, W, D = x.shape
    tokens = math.ceil(H / step) * math.ceil(W / step) * len(routes) // 6  # six integers describe a route
    return B * tokens * D * (9 * A.shape[2] + (Ds is not None) + dt_weight.shape[2])


def _selective_scan(args: tuple, out: Any) -> int:
    u, _, A, _, _, Ds = args[:6]
    return u.numel() * (9 * A.shape[1] + (Ds is not None))


_SCANS = {'visual_scan': _visual_scan, 'selective_scan': _selective_scan}


class _Counter(TorchDispatchMode):
    """Sums the cost of every operator that runs inside."""

    def __init__(self) -> None:
        super().__init__()
        self.flops = 0
        self.activations = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None) -> Any:
        out = func(*args, **(kwargs or {}))
        packet = func._overloadpacket
        if func.namespace == 'aten' and packet.__name__.endswith('_'):  # writes into its first argument
            packet = getattr(_aten, packet.__name__.removesuffix('_'), packet)
        if func.namespace.startswith('mmevm') and packet.__name__ in _SCANS:
            self.flops += _SCANS[packet.__name__](args, out)
            self.activations += out[0].numel()
        elif packet in _ELEMENTWISE:
            self.flops += _ELEMENTWISE[packet](args, out)
        elif packet in flop_registry:
            # PyTorch's formulas count a multiply-add twice.
            self.flops += flop_registry[packet](*args, **(kwargs or {}), out_val=out) // 2
            self.activations += out.numel()
        return out


def require_extension() -> None:
    """Raise a RuntimeError without the compiled extension: the reference would be counted as what it is made of."""
    if 'meta' not in extension.DEVICES:
        raise RuntimeError(f'Counting needs the compiled extension, whose scan is one operator: {extension.LOAD_ERROR}')


@contextlib.contextmanager
def _attention_of_counted_operators() -> Iterator[None]:
    """Lets attention run as matrix products; the fused operators of inference have no formula."""
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)


def count(
    module: nn.Module, *shapes: tuple[int, ...], run: Callable[..., Any] | None = None, device: str = 'meta'
) -> Complexity:
    """Counts one forward pass in evaluation mode.

    Args:
        module (nn.Module): Anything that takes float32 tensors; it is left as it is.
        *shapes (tuple[int, ...]): Shapes of its inputs.
        run (Callable, optional): Called with a copy of the module on ``device`` and with the inputs, in place of the
            module's own ``forward``.
        device (str): 'meta', or 'cpu' for a module whose forward pass depends on values; the count is the same.

    Returns:
        Complexity: The parameters of ``module``, and the cost of the pass.

    Raises:
        RuntimeError: If the compiled extension is absent.
    """
    require_extension()
    shell = copy.deepcopy(module).to(device).eval()
    with torch.no_grad(), torch.device(device), _attention_of_counted_operators(), _Counter() as counter:
        inputs = [torch.zeros(shape) for shape in shapes]
        run(shell, *inputs) if run else shell(*inputs)
    return Complexity(sum(p.numel() for p in module.parameters()), counter.flops, counter.activations)
