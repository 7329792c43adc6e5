"""Initial values of a selective scan's parameters (Mamba, arXiv 2312.00752, section 3.6)."""

import math

import torch
from torch import Tensor, nn


def init_dt_weight(weight: Tensor) -> None:
    """Uniform within R^-1/2, which keeps the variance. Args: weight (Tensor[..., D, R])."""
    bound = weight.shape[-1] ** -0.5
    nn.init.uniform_(weight, -bound, bound)


@torch.no_grad()
def init_dt_bias(bias: Tensor, dt_min: float = 1e-3, dt_max: float = 1e-1, dt_floor: float = 1e-4) -> None:
    """Makes softplus(bias) log-uniform in [dt_min, dt_max]. Args: bias (Tensor[..., D])."""
    log_dt = torch.empty_like(bias).uniform_(math.log(dt_min), math.log(dt_max))
    dt = log_dt.exp().clamp(min=dt_floor)
    bias.copy_(dt + torch.log(-torch.expm1(-dt)))  # the inverse of softplus


@torch.no_grad()
def init_A_log(A_log: Tensor) -> None:
    """S4D-real: A = -(1…N). Args: A_log (Tensor[..., N])."""
    A_log.copy_(torch.arange(1, A_log.shape[-1] + 1, dtype=torch.float32).log().expand_as(A_log))
