"""The operators of the one-dimensional scan."""

import torch
from torch import Tensor

from mmevm.ops import checks
from mmevm.ops.triton import launch


def _scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    Bs: Tensor,
    Cs: Tensor,
    Ds: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
) -> launch.Scan:
    checks.check_selective_scan(u, delta, A, Bs, Cs, Ds, delta_bias)
    B, D, L = u.shape
    N, G = A.shape[1], Bs.shape[1]
    u, delta, A, Bs, Cs = (t.contiguous() for t in (u, delta, A, Bs, Cs))
    Ds, bias = (None if t is None else t.contiguous() for t in (Ds, delta_bias))
    x_strides, bc_strides = (D * L, D // G * L, 1, L), (G * N * L, N * L, 1, L)
    return launch.Scan(u, delta, A, Bs, Cs, Ds, bias, delta_softplus, B, G, D // G, L, x_strides, bc_strides)


def forward(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    Bs: Tensor,
    Cs: Tensor,
    Ds: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
    save_states: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """``selective_scan``: output, last state, and the states before each chunk [B, G, chunks, N, D / G] or nothing."""
    scan = _scan(u, delta, A, Bs, Cs, Ds, delta_bias, delta_softplus)
    y = torch.empty_like(scan.x)
    last_state = scan.new(scan.batch, u.shape[1], A.shape[1])
    shape = (scan.batch, scan.n_routes, scan.n_chunks, A.shape[1], scan.channels) if save_states else (0,)
    states = scan.new(*shape)
    launch.forward(scan, y, 0, states if save_states else None, last_state)
    return y, last_state, states


def backward(
    dy: Tensor,
    dlast_state: Tensor | None,
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    Bs: Tensor,
    Cs: Tensor,
    Ds: Tensor | None,
    delta_bias: Tensor | None,
    states: Tensor,
    delta_softplus: bool,
) -> tuple[Tensor, ...]:
    """``_selective_scan_backward``: the gradients of the seven tensors, zero for absent ones."""
    scan = _scan(u, delta, A, Bs, Cs, Ds, delta_bias, delta_softplus)
    if dlast_state is not None:
        dlast_state = dlast_state.to(A.dtype).contiguous()
    du, ddelta = torch.empty_like(scan.x), torch.empty_like(scan.delta)
    # Every block of channels adds to these: atomically to one copy, or each to its own where order must not matter.
    copies = scan.n_blocks if torch.are_deterministic_algorithms_enabled() else 1
    dBs, dCs = (scan.new(copies, *Bs.shape).zero_() for _ in range(2))
    outputs = {'p_dx': du, 'p_ddelta': ddelta, 'p_dB': dBs, 'p_dC': dCs, 's_y': 0}
    outputs['s_copy'] = Bs.numel() if copies > 1 else 0
    sums = launch.backward(scan, dy.contiguous(), states.contiguous(), dlast_state, outputs)
    dDs, dbias = (A.new_zeros(u.shape[1]) if t is None else t.flatten() for t in (sums.Ds, sums.bias))
    dBs, dCs = launch.total(dBs, Bs.dtype), launch.total(dCs, Cs.dtype)
    return du, ddelta, sums.A.flatten(0, 1), dBs, dCs, dDs, dbias
