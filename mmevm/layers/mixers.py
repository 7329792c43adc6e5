"""Mixers of tokens by scans: EfficientVMamba's ES2D and VMamba's SS2D."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmevm.layers.basic import channels_last, dense, is_plain
from mmevm.ops import Route, es2d_routes, es2d_scan, training, visual_scan
from mmevm.ops.passes import available, depthwise_conv, gated_norm_, layer_norm, linear, projected_scan
from mmevm.ops.transforms import need_plain_operations


def init_dt_weight(weight: Tensor) -> None:
    """Uniform within R^-1/2, which keeps the variance. Args: weight (Tensor[..., D, R])."""
    bound = weight.shape[-1] ** -0.5
    nn.init.uniform_(weight, -bound, bound)


@torch.no_grad()
def init_dt_bias(bias: Tensor, dt_min: float = 1e-3, dt_max: float = 1e-1, dt_floor: float = 1e-4) -> None:
    """Make softplus(bias) log-uniform in [dt_min, dt_max]. Args: bias (Tensor[..., D])."""
    log_dt = torch.empty_like(bias).uniform_(math.log(dt_min), math.log(dt_max))
    dt = log_dt.exp().clamp(min=dt_floor)
    bias.copy_(dt + torch.log(-torch.expm1(-dt)))  # the inverse of softplus


@torch.no_grad()
def init_A_log(A_log: Tensor) -> None:
    """S4D-real: A = -(1…N). Args: A_log (Tensor[..., N])."""
    A_log.copy_(torch.arange(1, A_log.shape[-1] + 1, dtype=torch.float32).log().expand_as(A_log))


def project_phases(x: Tensor, weight: Tensor, step: int) -> Tensor:
    """``x_dbl[b, h, w] = weight[set of the phase of (h, w)] @ x[b, h, w]``, read and written in place, phase by phase.

    Args:
        x (Tensor[B, H, W, D]): Feature map.
        weight (Tensor[4, M, D]): One projection per parameter set, in ``x``'s dtype.
        step (int): Distance between neighbouring cells of a phase.

    Returns:
        Tensor[B, H, W, M].
    """
    if torch.jit.is_tracing() or need_plain_operations(x, weight):
        return _project_by_copies(x, weight, step)
    if not torch.is_grad_enabled():
        return _project(x, weight.mT, step)
    if training.available(x, weight):
        return training.project_phases(x, weight, step)
    return PhaseProjection.apply(x, weight, step)


class PhaseProjection(torch.autograd.Function):
    """:func:`project_phases` with gradients: autograd of plain operations would keep copies of the phases."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, step: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.step = step
        return _project(x, weight.mT, step)

    @staticmethod
    def backward(ctx: Any, dx_dbl: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        dx = _project(dx_dbl, weight, ctx.step) if ctx.needs_input_grad[0] else None
        dweight = _weight_gradient(x, dx_dbl, weight, ctx.step) if ctx.needs_input_grad[1] else None
        return dx, dweight, None


def _in_pairs(x: Tensor, step: int) -> bool:
    """Whether to project two neighbours of a row as one cell, which saves a GPU launches and copies.

    On a CPU the arithmetic would count, of which this is twice as much. Compilers take no products into views.
    """
    even = step == 2 and x.shape[1] % 2 == x.shape[2] % 2 == 0
    return even and x.is_cuda and x.is_contiguous() and not torch.compiler.is_compiling()


def _pair_rows(x: Tensor) -> list[Tensor]:
    """The even and the odd rows of a map [B, H, W, C] in pairs of cells: two views [B * H / 2, W / 2, 2C]."""
    B, H, W, C = x.shape
    return list(x.view(B * H // 2, 2, W // 2, 2 * C).unbind(1))


def _project_pairs(x: Tensor, weight: Tensor) -> Tensor:
    """:func:`_project` for step 2 and even sizes: a product for the even rows and one for the odd ones, in place."""
    _, I, O = weight.shape  # noqa: E741
    pairs = weight.new_zeros(2, 2, I, 2, O)  # of either kind of rows, block-diagonal
    pairs.diagonal(dim1=1, dim2=3).copy_(weight.unflatten(0, (2, 2)).permute(1, 2, 3, 0))
    y = x.new_empty(*x.shape[:3], O)
    for rows, matrix, result in zip(_pair_rows(x), pairs.flatten(3).flatten(1, 2), _pair_rows(y), strict=True):
        torch.bmm(rows, matrix.expand(rows.shape[0], -1, -1), out=result)
    return y


def _project(x: Tensor, weight: Tensor, step: int) -> Tensor:
    """Args: x (Tensor[B, H, W, I]), weight (Tensor[4, I, O]). Returns: Tensor[B, H, W, O]."""
    if _in_pairs(x, step):
        return _project_pairs(x, weight)
    y = x.new_empty(*x.shape[:3], weight.shape[2])
    for route in es2d_routes(step):
        cells = x[:, route.row :: step, route.col :: step]
        # A batch of the map's rows, whose cells are evenly spaced: a matrix product can read them in place.
        rows = cells.reshape(cells.shape[0] * cells.shape[1], *cells.shape[2:])
        product = torch.bmm(rows, weight[route.parameters].expand(rows.shape[0], -1, -1))
        y[:, route.row :: step, route.col :: step] = product.reshape(*cells.shape[:3], product.shape[2])
    return y


def _project_by_copies(x: Tensor, weight: Tensor, step: int) -> Tensor:
    """:func:`project_phases` for tracers and ``torch.func``, which take neither Functions nor writes in place."""
    H, W = x.shape[1:3]
    x = F.pad(x, (0, 0, 0, -W % step, 0, -H % step))
    phases = [F.linear(x[:, r.row :: step, r.col :: step], weight[r.parameters]) for r in es2d_routes(step)]
    y = torch.stack(phases).unflatten(0, (step, step))  # [p (columns), p (rows), B, H / p, W / p, M]
    return y.permute(2, 3, 1, 4, 0, 5).flatten(3, 4).flatten(1, 2)[:, :H, :W]


def _weight_gradient_of_pairs(x: Tensor, dy: Tensor) -> Tensor:
    """:func:`_weight_gradient` for step 2 and even sizes."""
    both = zip(_pair_rows(dy), _pair_rows(x), strict=True)
    products = torch.stack([drows.flatten(0, 1).mT @ rows.flatten(0, 1) for drows, rows in both])
    blocks = products.view(2, 2, dy.shape[3], 2, x.shape[3]).diagonal(dim1=1, dim2=3)  # [row, M, D, column]
    return blocks.permute(3, 0, 1, 2).flatten(0, 1)


def _weight_gradient(x: Tensor, dy: Tensor, weight: Tensor, step: int) -> Tensor:
    if _in_pairs(x, step) and dy.is_contiguous():
        return _weight_gradient_of_pairs(x, dy)
    products: list[list[Tensor]] = [[] for _ in weight]
    for route in es2d_routes(step):
        cells, dcells = (t[:, route.row :: step, route.col :: step].reshape(-1, t.shape[3]) for t in (x, dy))
        products[route.parameters].append(dcells.mT @ cells)
    return torch.stack([torch.stack(terms).sum(0) for terms in products])


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
        self.out_norm = nn.LayerNorm(D)
        self.out_proj = nn.Linear(D, channels, bias=False)
        self.reset_scan_parameters()

    def reset_scan_parameters(self) -> None:
        """S4D-real initialisation, with D = 1; see :mod:`mmevm.layers.mixers`."""
        for weight in self.x_proj_weight:
            nn.init.kaiming_uniform_(weight, a=math.sqrt(5))
        init_dt_weight(self.dt_projs_weight)
        init_dt_bias(self.dt_projs_bias)
        init_A_log(self.A_logs)
        nn.init.ones_(self.Ds)

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """Args: x (Tensor[B, H, W, C]), residual (Tensor[B, H, W, C], optional): added. Returns: Tensor[B, H, W, C]."""
        plain = is_plain(self.in_proj, self.conv2d, self.out_norm) and self.in_proj.bias is None
        if not plain:
            y, *gate = self.in_proj(x).split(self.d_inner, dim=-1)
            y = self.out_norm(self.scan(F.silu(channels_last(self.conv2d, y))))
            return dense(y * F.silu(*gate) if self.gate else y, self.out_proj, residual=residual)
        # Two products instead of one: each half is then contiguous for what follows.
        weight_x, *weight_z = self.in_proj.weight.split(self.d_inner)
        y = self.convolve_and_scan(linear(x, weight_x))
        if self.gate:
            y = gated_norm_(y, linear(x, *weight_z), self.out_norm)
        else:
            y = layer_norm(y, self.out_norm)
        return dense(y, self.out_proj, residual=residual)

    def convolve_and_scan(self, x: Tensor) -> Tensor:
        """Args: x (Tensor[B, H, W, D]). Returns: Tensor[B, H, W, D]."""
        return self.scan(depthwise_conv(x, self.conv2d.weight, self.conv2d.bias, activation='silu'))

    def scan(self, x: Tensor) -> Tensor:
        """Args: x (Tensor[B, H, W, D]). Returns: Tensor[B, H, W, D]."""
        raise NotImplementedError

    def scans_in_one_pass(self, x: Tensor) -> bool:
        """Return whether :meth:`project_and_scan` serves a map."""
        return available(x, self.x_proj_weight, self.dt_projs_weight, self.dt_projs_bias, self.A_logs, self.Ds)

    def project_and_scan(self, x: Tensor, routes: list[Route], step: int) -> Tensor:
        """:func:`mmevm.ops.passes.projected_scan` with this mixer's parameters, for inference."""
        K, D = self.n_sets, self.d_inner
        A_logs, Ds = self.A_logs.view(K, D, -1), self.Ds.view(K, D)
        return projected_scan(x, self.x_proj_weight, self.dt_projs_weight, self.dt_projs_bias, A_logs, Ds, routes, step)

    def scan_parameters(self, data: Tensor) -> dict[str, Tensor]:
        """Return the arguments of a scan of ``data`` besides it and its projection, one entry per parameter set."""
        # They stay in float32 where the model or autocast is in half precision.
        dtype = torch.promote_types(data.dtype, torch.float32)
        return {
            'dt_weight': self.dt_projs_weight.to(dtype),
            'A': -torch.exp(self.A_logs.to(dtype)).view(self.n_sets, self.d_inner, self.d_state),
            'Ds': self.Ds.to(dtype).view(self.n_sets, self.d_inner),
            'dt_bias': self.dt_projs_bias.to(dtype),
        }


def _phase_routes(step: int) -> list[Route]:
    """ES2D's routes, each with the projection of its own parameter set."""
    return [route._replace(projection=route.parameters) for route in es2d_routes(step)]


class ES2D(ScanMixer):
    """Token mixer around the atrous selective scan (ES2D, arXiv 2403.09977, section 4.1).

    Phases whose offsets agree modulo 2 share a parameter set.

    Args:
        channels (int): C; the inner width D is ``expand * C``.
        step_size (int): Distance p between neighbouring cells of a phase, at least 2.
        d_state (int): States N per channel.
        expand (float): D / C.
    """

    def __init__(self, channels: int, step_size: int = 2, d_state: int = 16, expand: float = 2.0) -> None:
        if step_size < 2:
            raise ValueError(f'`step_size` must be at least 2 for the atrous scan, got {step_size}')
        super().__init__(channels, d_state, expand)
        self.step_size = step_size

    def convolve_and_scan(self, x: Tensor) -> Tensor:
        """Args: x (Tensor[B, H, W, D]). Returns: Tensor[B, H, W, D]."""
        conv, x_proj = self.conv2d, self.x_proj_weight
        fused = type(self) is ES2D and training.available(x, conv.weight, conv.bias, x_proj, self.A_logs)
        # A compiler keeps what it likes, and fuses the rest.
        if not fused or torch.compiler.is_compiling():
            return super().convolve_and_scan(x)
        parameters = self.scan_parameters(x)
        return training.convolve_and_scan(x, conv.weight, conv.bias, x_proj, step=self.step_size, **parameters)

    def scan(self, x: Tensor) -> Tensor:
        """Args: x (Tensor[B, H, W, D]). Returns: Tensor[B, H, W, D]."""
        if self.scans_in_one_pass(x):
            return self.project_and_scan(x, _phase_routes(self.step_size), self.step_size)
        return es2d_scan(x, self.project(x), **self.scan_parameters(x), step=self.step_size)

    def project(self, x: Tensor) -> Tensor:
        """Args: x (Tensor[B, H, W, D]). Returns: Tensor[B, H, W, R + 2N], by the parameter set of each cell's phase."""
        return project_phases(x, self.x_proj_weight.to(x.dtype), self.step_size)


# Along the rows, down the columns, and both from the last cell to the first: the order of the checkpoints' sets.
ROUTES = [Route(0, 0, k % 2 == 1, k >= 2, parameters=k, projection=k) for k in range(4)]


class SS2D(ScanMixer):
    """Token mixer around the cross scan (SS2D, VMamba, arXiv 2401.10166, section 4.2).

    Each of the four routes over the full map has a parameter set of its own; their results are summed.
    """

    def scan(self, x: Tensor) -> Tensor:
        """Args: x (Tensor[B, H, W, D]). Returns: Tensor[B, H, W, D]."""
        if self.scans_in_one_pass(x):
            return self.project_and_scan(x, ROUTES, step=1)
        return visual_scan(x, self.project(x), **self.scan_parameters(x), routes=ROUTES)

    def project(self, x: Tensor) -> Tensor:
        """Args: x (Tensor[B, H, W, D]). Returns: Tensor[B, H, W, 4, R + 2N], one projection for each route."""
        return F.linear(x, self.x_proj_weight.flatten(0, 1)).unflatten(-1, (self.n_sets, -1))
