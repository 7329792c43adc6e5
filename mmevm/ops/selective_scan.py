"""The one-dimensional selective scan."""

import torch
import torch.nn.functional as F
from torch import Tensor

from mmevm.ops import backends, checks, reference


def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    Bs: Tensor,
    Cs: Tensor,
    Ds: Tensor | None = None,
    *,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    return_last_state: bool = False,
    backend: str = 'auto',
) -> Tensor | tuple[Tensor, Tensor]:
    r"""Selective scan with the meaning of mamba_ssm's ``selective_scan_fn`` (arXiv 2312.00752, section 3), real ``A``.

    .. math::
        h_t = \exp(\Delta_t A)\, h_{t-1} + \Delta_t B_t u_t, \qquad y_t = C_t h_t + D u_t

    Data may be float16, bfloat16, float32 or float64, mixed freely as under autocast; delta, the state and all sums are
    float32, or float64 where ``u`` is float64.

    Args:
        u (Tensor[B, D, L]): Input sequence.
        delta (Tensor[B, D, L]): Time steps.
        A (Tensor[D, N]): State matrix, 1 to 256 states, float32 (float64 beside a float64 ``u``).
        Bs (Tensor[B, G, N, L] or Tensor[B, N, L]): Input matrices; channels are split evenly into G groups.
        Cs (Tensor[B, G, N, L] or Tensor[B, N, L]): Output matrices.
        Ds (Tensor[D], optional): Skip connection, dtype as ``A``.
        z (Tensor[B, D, L], optional): Gate; the output is multiplied by ``silu(z)``.
        delta_bias (Tensor[D], optional): Added to ``delta``, dtype as ``A``.
        delta_softplus (bool): Applies softplus to ``delta + delta_bias``.
        return_last_state (bool): Returns the state after the last token, too.
        backend (str): 'auto', 'compiled', 'triton' or 'reference'; 'auto' takes the fastest that serves the data.

    Returns:
        Tensor[B, D, L], in ``u``'s dtype, or a tuple of it and the last state Tensor[B, D, N].

    Raises:
        ValueError: If a shape, device or the backend's name does not fit.
        TypeError: If a dtype does not fit, a complex ``A`` among them.
        RuntimeError: If the backend was asked for by name and cannot serve the data.
    """
    checks.check_tensor(Bs, 'Bs')
    checks.check_tensor(Cs, 'Cs')
    if Bs.dim() == 3:
        Bs = Bs.unsqueeze(1)
    if Cs.dim() == 3:
        Cs = Cs.unsqueeze(1)
    inputs = checks.SequenceInputs(u, delta, A, Bs, Cs, Ds, delta_bias)
    # A tracer would take every comparison of sizes for a risk; the traced operator checks them itself.
    if not torch.jit.is_tracing():
        checks.check_selective_scan(inputs)
        if z is not None:
            checks.check_gate(z, u)
    # Before the gate, and in its gradient, the output is not rounded: mamba_ssm gates in float32, too.
    if z is not None:
        inputs = inputs._replace(u=u.to(checks.accumulate_dtype(u)))
    chosen = backends.choose(backend, *inputs)
    if chosen == 'reference':
        y, last_state = reference.selective_scan(*inputs, delta_softplus)
    else:
        operator = backends.operators(chosen).selective_scan
        y, last_state, _ = operator(*inputs, delta_softplus, backends.needs_grad(*inputs))
    if z is not None:
        y = (y * F.silu(z.to(y.dtype))).to(u.dtype)
    return (y, last_state) if return_last_state else y
