"""The operators of the one-dimensional scan."""

from typing import Any

import torch
from torch import Tensor

from mmevm.ops import checks
from mmevm.ops.checks import SequenceInputs, contiguous
from mmevm.ops.triton import launch


def _scan(inputs: SequenceInputs, delta_softplus: bool) -> launch.Scan:
    checks.check_selective_scan(inputs)
    u, delta, A, Bs, Cs, Ds, bias = contiguous(inputs)
    _, D, L = u.shape
    N, G = A.shape[1], Bs.shape[1]
    return launch.Scan(
        x=u,
        delta=delta,
        A=A,
        Bs=Bs,
        Cs=Cs,
        Ds=Ds,
        bias=bias,
        softplus=delta_softplus,
        n_routes=G,
        channels=D // G,
        length=L,
        x_strides=(D * L, D // G * L, 1, L),
        bc_strides=(G * N * L, N * L, 1, L),
    )


def forward(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    """``selective_scan``: output, last state, and the states before each chunk [B, G, chunks, N, D / G] or nothing."""
    *tensors, delta_softplus, save_states = arguments
    scan = _scan(SequenceInputs(*tensors), delta_softplus)
    y, states = torch.empty_like(scan.x), scan.new_states(save_states)
    last_state = scan.new(scan.batch, *scan.A.shape)
    launch.forward(scan, y, 0, states if save_states else None, last_state)
    return y, last_state, states


def backward(dy: Tensor, dlast_state: Tensor | None, *arguments: Any) -> tuple[Tensor, ...]:
    """``_selective_scan_backward``: the gradients of the seven tensors, zero for absent ones."""
    *tensors, states, delta_softplus = arguments
    inputs = SequenceInputs(*tensors)
    scan = _scan(inputs, delta_softplus)
    A, Bs, Cs = inputs.A, inputs.Bs, inputs.Cs
    if dlast_state is not None:
        dlast_state = dlast_state.to(A.dtype).contiguous()
    du, ddelta = torch.empty_like(scan.x), torch.empty_like(scan.delta)
    # Every block of channels adds to these: atomically to one copy, or each to its own where order must not matter.
    copies = scan.n_blocks if torch.are_deterministic_algorithms_enabled() else 1
    dBs, dCs = (scan.new(copies, *Bs.shape).zero_() for _ in range(2))
    outputs = {'p_dx': du, 'p_ddelta': ddelta, 'p_dB': dBs, 'p_dC': dCs, 's_y': 0}
    outputs['s_copy'] = Bs.numel() if copies > 1 else 0
    sums = launch.backward(scan, dy.contiguous(), states.contiguous(), dlast_state, outputs)
    dDs, dbias = (A.new_zeros(A.shape[0]) if t is None else t.flatten() for t in (sums.Ds, sums.bias))
    dBs, dCs = launch.total(dBs, Bs.dtype), launch.total(dCs, Cs.dtype)
    return du, ddelta, sums.A.flatten(0, 1), dBs, dCs, dDs, dbias
