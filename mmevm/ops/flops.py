"""The scans' cost, for PyTorch's and MMEngine's counters.

A selective scan counts ``9 N + 1`` multiply-adds per token and channel (N states; the 1 is the skip connection), as in
the papers' tables. The projection of the time step, which ``visual_scan`` does on the way, counts R.
"""

import math
import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch
from mmengine.analysis import complexity_analysis
from mmengine.analysis.jit_handles import generic_activation_jit
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack

from mmevm.ops.routes import unflatten

Shape = Sequence[int]


def selective_scan_macs(u: Shape, A: Shape, has_skip: bool) -> int:
    """Return the multiply-adds of ``selective_scan`` for inputs of these shapes."""
    return math.prod(u) * (9 * A[1] + has_skip)


def visual_scan_macs(x: Shape, dt_weight: Shape, A: Shape, has_skip: bool, step: int, n_routes: int) -> int:
    """Return the multiply-adds of ``visual_scan`` for inputs of these shapes."""
    B, H, W, D = x
    tokens = math.ceil(H / step) * math.ceil(W / step) * n_routes
    return B * tokens * D * (9 * A[-1] + has_skip + dt_weight[-1])


# Inputs as the operators' schemas order them; six integers describe a route.
def _sequence(u: Shape, A: Shape, Ds: Any) -> int:
    return selective_scan_macs(u, A, Ds is not None)


def _map(x: Shape, dt_weight: Shape, A: Shape, Ds: Any, step: int, routes: list[int]) -> int:
    return visual_scan_macs(x, dt_weight, A, Ds is not None, step, len(routes) // 6)


_SELECTIVE_SCAN = (0, 2, 5)
_VISUAL_SCAN = (0, 2, 4, 5, 6, 7)


def _depthwise(x: Shape, weight: Shape) -> int:
    return math.prod(x) * math.prod(weight[2:])


def _linear(x: Shape, weight: Shape) -> int:
    return math.prod(x) * weight[0]


def _phases(x: Shape, weight: Shape) -> int:
    return math.prod(x) * weight[1]


def _projected(x: Shape, x_proj: Shape, dt_weight: Shape, A: Shape, Ds: Any, step: int, routes: list[int]) -> int:
    """The scans, and a product of every cell with each set of the projection that its routes name."""
    projections = {(route.row, route.col, route.projection) for route in unflatten(routes)}
    cells = sum(math.ceil((x[1] - row) / step) * math.ceil((x[2] - col) / step) for row, col, _ in projections)
    return x[0] * cells * math.prod(x_proj[-2:]) + _map(x, dt_weight, A, Ds, step, routes)


# PyTorch's counter passes shapes instead of tensors; its unit is half a multiply-add. A backward pass counts twice
# its forward pass.
_FORMULAS: dict[str, Callable[..., int]] = {
    'selective_scan': lambda *a, **_: 2 * _sequence(*(a[i] for i in _SELECTIVE_SCAN)),
    'visual_scan': lambda *a, **_: 2 * _map(*(a[i] for i in _VISUAL_SCAN)),
    # dy and, of the sequence, the last state's gradient come first; of the map, the states stand before the step.
    '_selective_scan_backward': lambda *a, **_: 4 * _sequence(*(a[2 + i] for i in _SELECTIVE_SCAN)),
    '_visual_scan_backward': lambda *a, **_: 4 * _map(*(a[1 + i + (i > 5)] for i in _VISUAL_SCAN)),
    'channel_gate': lambda *a, **_: 2 * (_linear(a[0], a[1]) + math.prod(a[0]) * a[1][0]),
    'linear': lambda *a, **_: 2 * _linear(a[0], a[1]),
    'depthwise_conv': lambda *a, **_: 2 * _depthwise(a[0], a[1]),
    'depthwise_activation': lambda *a, **_: 2 * _depthwise(a[0], a[1]),
    '_depthwise_activation_backward': lambda *a, **_: 4 * _depthwise(a[1], a[2]),
    'phase_projection': lambda *a, **_: 2 * _phases(a[0], a[1]),
    '_phase_projection_backward': lambda *a, **_: 4 * _phases(a[1], a[2]),
    'projected_visual_scan': lambda *a, **_: 2 * _projected(a[0], a[1], *(a[i] for i in _VISUAL_SCAN[1:])),
}


def join_torch_counter(namespace: str) -> None:
    """Register the operators of ``torch.ops.<namespace>`` with ``FlopCounterMode``, if it is in use.

    Importing it takes a second, for it imports Triton, and counters copy their table when they are made: so this is
    called before an operator runs, and serves counters that are active.
    """
    counting = sys.modules.get('torch.utils.flop_counter')
    if counting is None:
        return
    operators = getattr(torch.ops, namespace)
    if operators.visual_scan not in counting.flop_registry:
        for name, formula in _FORMULAS.items():
            if hasattr(operators, name):
                counting.register_flop_formula(getattr(operators, name))(formula)
    if not torch._C._len_torch_dispatch_stack():  # this runs before every operator
        return
    for mode in _get_current_dispatch_mode_stack():
        table = getattr(getattr(mode, 'counter', mode), 'flop_registry', None)
        if table is not None and operators.visual_scan not in table:
            ours = (getattr(operators, name) for name in _FORMULAS if hasattr(operators, name))
            table.update((operator, counting.flop_registry[operator]) for operator in ours)


def register_with_mmengine(namespace: str) -> None:
    """Register the operators of ``torch.ops.<namespace>`` with ``mmengine.analysis``, which reads traced graphs."""

    def read(value: Any) -> Any:
        """A tensor's shape, the values in a list, or a constant."""
        if value.isCompleteTensor():
            return value.type().sizes()
        if value.node().kind() == 'prim::ListConstruct':
            return [read(item) for item in value.node().inputs()]
        return value.toIValue()

    handlers = {
        'selective_scan': lambda inputs, outputs: _sequence(*(read(inputs[i]) for i in _SELECTIVE_SCAN)),
        'visual_scan': lambda inputs, outputs: _map(*(read(inputs[i]) for i in _VISUAL_SCAN)),
    }
    for name, handler in handlers.items():
        # Its analysers take their defaults from these tables when they are made, and have no other place for all.
        complexity_analysis._DEFAULT_SUPPORTED_FLOP_OPS[f'{namespace}::{name}'] = handler
        complexity_analysis._DEFAULT_SUPPORTED_ACT_OPS[f'{namespace}::{name}'] = generic_activation_jit()
