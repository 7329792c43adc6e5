"""The atrous selective-scan mixer."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmevm.layers.conv_norm import depthwise
from mmevm.layers.phase_projection import project_phases
from mmevm.layers.scan_init import init_A_log, init_dt_bias, init_dt_weight
from mmevm.ops import es2d_scan


class ES2D(nn.Module):
    """Token mixer around the atrous selective scan (ES2D, arXiv 2403.09977, section 4.1).

    Args:
        channels (int): C; the inner width D is ``expand * C``.
        step_size (int): Distance p between neighbouring cells of a phase, at least 2.
        d_state (int): States N per channel.
        expand (float): D / C.
    """

    n_sets = 4
    """Parameter sets K: phases whose offsets agree modulo 2 share one."""

    def __init__(self, channels: int, step_size: int = 2, d_state: int = 16, expand: float = 2.0) -> None:
        super().__init__()
        if step_size < 2:
            raise ValueError(f'`step_size` must be at least 2 for the atrous scan, got {step_size}')
        K, D, N, R = self.n_sets, int(expand * channels), d_state, math.ceil(channels / 16)
        self.step_size, self.d_inner, self.d_state, self.dt_rank = step_size, D, N, R
        self.in_proj = nn.Linear(channels, 2 * D, bias=False)
        self.conv2d = nn.Conv2d(D, D, 3, padding=1, groups=D)
        self.x_proj_weight = nn.Parameter(torch.empty(K, R + 2 * N, D))
        self.dt_projs_weight = nn.Parameter(torch.empty(K, D, R))
        self.dt_projs_bias = nn.Parameter(torch.empty(K, D))
        self.A_logs = nn.Parameter(torch.empty(K * D, N))
        self.Ds = nn.Parameter(torch.empty(K * D))
        for parameter in (self.A_logs, self.Ds):
            parameter._no_weight_decay = True
        self.out_norm = nn.LayerNorm(D)
        self.out_proj = nn.Linear(D, channels, bias=False)
        self.reset_scan_parameters()

    def reset_scan_parameters(self) -> None:
        """S4D-real initialisation, with D = 1; see :mod:`mmevm.layers.scan_init`."""
        for weight in self.x_proj_weight:
            nn.init.kaiming_uniform_(weight, a=math.sqrt(5))
        init_dt_weight(self.dt_projs_weight)
        init_dt_bias(self.dt_projs_bias)
        init_A_log(self.A_logs)
        nn.init.ones_(self.Ds)

    def forward(self, x: Tensor) -> Tensor:
        """Args: x (Tensor[B, H, W, C]). Returns: Tensor[B, H, W, C]."""
        # Two products instead of one: each half is then contiguous for what follows.
        weight_x, weight_z = self.in_proj.weight.chunk(2)
        # In inference every map that nothing else holds is reused: fresh memory costs more than the arithmetic.
        reuse = not torch.is_grad_enabled()
        y = depthwise(F.linear(x, weight_x), self.conv2d.weight, self.conv2d.bias)
        y = self.out_norm(self.scan(F.silu(y, inplace=reuse)))
        z = F.silu(F.linear(x, weight_z), inplace=reuse)
        return self.out_proj(y.mul_(z) if reuse else y * z)

    def scan(self, x: Tensor) -> Tensor:
        """Args: x (Tensor[B, H, W, D]). Returns: Tensor[B, H, W, D]."""
        K, D, N = self.n_sets, self.d_inner, self.d_state
        # The scan's parameters stay in float32 where the model or autocast is in half precision.
        dtype = torch.promote_types(x.dtype, torch.float32)
        return es2d_scan(
            x,
            self.project(x),
            self.dt_projs_weight.to(dtype),
            -torch.exp(self.A_logs.to(dtype)).view(K, D, N),
            self.Ds.to(dtype).view(K, D),
            step=self.step_size,
            dt_bias=self.dt_projs_bias.to(dtype),
        )

    def project(self, x: Tensor) -> Tensor:
        """Args: x (Tensor[B, H, W, D]). Returns: Tensor[B, H, W, R + 2N], by the parameter set of each cell's phase."""
        return project_phases(x, self.x_proj_weight.to(x.dtype), self.step_size)
