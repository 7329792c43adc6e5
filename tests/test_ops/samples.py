"""Inputs for the operator tests: one list feeds the correctness, gradient and opcheck tests of every backend."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from mmevm.ops import Route

Named = dict[str, Tensor]

SS2D = [Route(0, 0, bool(k % 2), k >= 2, k, k) for k in range(4)]
PAIR = [Route(0, 0, False, False, 0, 0), Route(0, 0, False, True, 1, 1)]
SHARED = [Route(0, 0, False, False, 1, 0), Route(0, 0, True, True, 1, 0), Route(1, 1, False, True, 0, 0)]
"""Routes over the same cells with the same projection and parameters, and phases that none of them visits."""

# Largest error relative to the largest reference value, by dtype of the data.
TOLERANCE = {torch.float64: 1e-10, torch.float32: 2e-5, torch.bfloat16: 2e-2, torch.float16: 3e-3}


def relative_error(got: Tensor, expected: Tensor) -> float:
    """max |got - expected| / max |expected|, in float64."""
    got, expected = got.double(), expected.double()
    if expected.numel() == 0:
        return 0.0
    return ((got - expected).abs().max() / expected.abs().max().clamp_min(1e-12)).item()


def _normal(seed: int) -> Callable[..., Tensor]:
    """Draws normal values of any shape in float64, so that every dtype gets the same ones."""
    return partial(torch.randn, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _leaves(data: Named, parameters: Named, dtype: torch.dtype, requires_grad: bool) -> Named:
    """The data in ``dtype`` and the parameters in the dtype that goes with it."""
    parameter_dtype = torch.float64 if dtype == torch.float64 else torch.float32
    tensors = {k: v.to(dtype) for k, v in data.items()} | {k: v.to(parameter_dtype) for k, v in parameters.items()}
    return {k: v.requires_grad_(requires_grad) for k, v in tensors.items()}


def sequence_inputs(
    B: int = 2,
    D: int = 24,
    L: int = 33,
    N: int = 16,
    G: int = 1,
    dtype: torch.dtype = torch.float32,
    requires_grad: bool = False,
    seed: int = 0,
) -> Named:
    """Named inputs of ``selective_scan``: realistic time steps, A = -(1…N)."""
    randn = _normal(seed)
    data = {'u': randn(B, D, L), 'delta': randn(B, D, L), 'Bs': randn(B, G, N, L), 'Cs': randn(B, G, N, L)}
    parameters = {
        'A': -torch.arange(1, N + 1, dtype=torch.float64) * (1 + 0.1 * randn(D, N)),
        'Ds': randn(D),
        'delta_bias': randn(D) - 2,
    }
    return _leaves(data, parameters, dtype, requires_grad)


def map_inputs(
    B: int = 2,
    H: int = 9,
    W: int = 7,
    D: int = 20,
    N: int = 16,
    R: int = 3,
    K: int = 4,
    P: int = 1,
    dtype: torch.dtype = torch.float32,
    requires_grad: bool = False,
    seed: int = 0,
) -> Named:
    """Named inputs of ``visual_scan``."""
    randn = _normal(seed)
    data = {'x': randn(B, H, W, D), 'x_dbl': randn(B, H, W, P, R + 2 * N)}
    parameters = {
        'dt_weight': randn(K, D, R) * R**-0.5,
        'A': -torch.arange(1, N + 1, dtype=torch.float64) * (1 + 0.1 * randn(K, D, N)),
        'Ds': randn(K, D),
        'dt_bias': randn(K, D) - 2,
    }
    return _leaves(data, parameters, dtype, requires_grad)


def to_float64(inputs: Named) -> Named:
    """Detached float64 copies that require the same gradients."""
    return {k: v.detach().double().requires_grad_(v.requires_grad) for k, v in inputs.items()}
