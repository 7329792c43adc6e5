"""What the mixers around a scan of the feature map have in common."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmevm.layers.conv_norm import channels_last, depthwise
from mmevm.layers.direct import is_plain
from mmevm.layers.scan_init import init_A_log, init_dt_bias, init_dt_weight
from mmevm.ops.transforms import in_transform


class ScanMixer(nn.Module):
    """Projection, depthwise convolution, scan, norm, gate, projection (VMamba, arXiv 2401.10166, section 4).

    A subclass scans the map in :meth:`scan`.

    Args:
        channels (int): C; the inner width D is ``expand * C``.
        d_state (int): States N per channel.
        expand (float): D / C.
        gate (bool): Multiplies the scanned map by a second projection of the input.
        conv_bias (bool): Whether the depthwise convolution has a bias.
    """

    n_sets = 4
    """Parameter sets K of the scan."""

    def __init__(
        self, channels: int, d_state: int = 16, expand: float = 2.0, gate: bool = True, conv_bias: bool = True
    ) -> None:
        super().__init__()
        K, D, N, R = self.n_sets, int(expand * channels), d_state, math.ceil(channels / 16)
        self.d_inner, self.d_state, self.dt_rank, self.gate = D, N, R, gate
        self.in_proj = nn.Linear(channels, 2 * D if gate else D, bias=False)
        self.conv2d = nn.Conv2d(D, D, 3, padding=1, groups=D, bias=conv_bias)
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
        plain = is_plain(self.in_proj, self.conv2d, self.out_norm) and self.in_proj.bias is None
        if not plain:
            y, *gate = self.in_proj(x).split(self.d_inner, dim=-1)
            y = self.out_norm(self.scan(F.silu(channels_last(self.conv2d, y))))
            return self.out_proj(y * F.silu(*gate) if self.gate else y)
        # Two products instead of one: each half is then contiguous for what follows.
        weight_x, *weight_z = self.in_proj.weight.split(self.d_inner)
        # In inference every map that nothing else holds is reused: fresh memory costs more than the arithmetic.
        reuse = not (torch.is_grad_enabled() or torch.jit.is_tracing() or in_transform())
        y = depthwise(F.linear(x, weight_x), self.conv2d.weight, self.conv2d.bias)
        y = self.out_norm(self.scan(F.silu(y, inplace=reuse)))
        if self.gate:
            z = F.silu(F.linear(x, *weight_z), inplace=reuse)
            y = y.mul_(z) if reuse else y * z
        return self.out_proj(y)

    def scan(self, x: Tensor) -> Tensor:
        """Args: x (Tensor[B, H, W, D]). Returns: Tensor[B, H, W, D]."""
        raise NotImplementedError

    def scan_parameters(self, data: Tensor) -> dict[str, Tensor]:
        """The arguments that a scan of ``data`` takes besides it and its projection, one entry per parameter set."""
        # They stay in float32 where the model or autocast is in half precision.
        dtype = torch.promote_types(data.dtype, torch.float32)
        return {
            'dt_weight': self.dt_projs_weight.to(dtype),
            'A': -torch.exp(self.A_logs.to(dtype)).view(self.n_sets, self.d_inner, self.d_state),
            'Ds': self.Ds.to(dtype).view(self.n_sets, self.d_inner),
            'dt_bias': self.dt_projs_bias.to(dtype),
        }
