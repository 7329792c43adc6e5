"""Layers as they are exported: forms with one graph for every size of image, and the scan as one operator."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmevm.backbones import vim as vim_backbone
from mmevm.deploy.functions import visual_scan_node
from mmevm.layers import blocks, vim
from mmevm.layers.basic import is_plain
from mmevm.layers.mixers import ES2D, ROUTES, SS2D, ScanMixer
from mmevm.layers.patch import PatchMerging
from mmevm.layers.vim import BidirectionalMamba, causal_conv, insert_middle, split_middle
from mmevm.ops import Route, es2d_routes, visual_scan
from mmevm.ops.routes import flatten, unflatten


@torch.library.custom_op('mmevm_deploy::visual_scan', mutates_args=())
def scan_map(
    x: Tensor,
    x_proj: Tensor,
    dt_weight: Tensor,
    dt_bias: Tensor,
    A: Tensor,
    Ds: Tensor,
    step: int,
    routes: list[int],
) -> Tensor:
    """Scan a map together with the projections of its cells; see :func:`.functions.VisualScan`."""
    x_dbl = torch.einsum('bhwd,pmd->bhwpm', x, x_proj)
    return visual_scan(x, x_dbl, dt_weight, A, Ds, routes=unflatten(routes), step=step, dt_bias=dt_bias)


@scan_map.register_fake
def _(x: Tensor, *_: Any) -> Tensor:
    return x.new_empty(x.shape)


TRANSLATIONS: dict[Any, Any] = {torch.ops.mmevm_deploy.visual_scan.default: visual_scan_node}
"""For ``torch.onnx.export``'s ``custom_translation_table``."""


def _scan_map(x: Tensor, x_proj: Tensor, parameters: dict[str, Tensor], routes: list[Route], step: int) -> Tensor:
    weights = (parameters[name] for name in ('dt_weight', 'dt_bias', 'A', 'Ds'))
    return torch.ops.mmevm_deploy.visual_scan(x, x_proj, *weights, step, flatten(routes))


def _scan_phases(self: ES2D, x: Tensor) -> Tensor:
    # A phase's cells are projected by its own parameter set.
    routes = sorted(route._replace(projection=route.parameters) for route in es2d_routes(self.step_size))
    return _scan_map(x, self.x_proj_weight, self.scan_parameters(x), routes, self.step_size)


def _scan_cross(self: ScanMixer, x: Tensor) -> Tensor:
    return _scan_map(x, self.x_proj_weight, self.scan_parameters(x), ROUTES, 1)


def _scan_direction(
    x: Tensor,
    conv: nn.Conv1d,
    x_proj: nn.Linear,
    dt_proj: nn.Linear,
    A_log: Tensor,
    D: Tensor,
    reverse: bool = False,
) -> Tensor:
    if not (is_plain(x_proj, dt_proj) and x_proj.bias is None):
        raise NotImplementedError('the projections of a scan are not plain linear layers; merge adapters first')
    weights = (dt_proj.weight, dt_proj.bias, -torch.exp(A_log), D)
    names = ('dt_weight', 'dt_bias', 'A', 'Ds')
    parameters = {name: weight.unsqueeze(0) for name, weight in zip(names, weights, strict=True)}
    y = F.silu(causal_conv(x, conv, reverse))
    return _scan_map(y, x_proj.weight.unsqueeze(0), parameters, vim.ROUTES[1:] if reverse else vim.ROUTES[:1], 1)


_pointwise_norm = blocks._pointwise_norm


def _fold_pointwise_norm(x: Tensor, layers: nn.Sequential) -> Tensor:
    conv, norm = layers
    if not (is_plain(conv, norm) and isinstance(norm, nn.BatchNorm2d) and norm.running_var is not None and norm.affine):
        return _pointwise_norm(x, layers)
    # In one product; ONNX Runtime 1.20 takes this product and norm for a Gemm, which a map of four axes is not.
    scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
    shift = norm.bias - norm.running_mean * scale
    if conv.bias is not None:
        shift = shift + conv.bias * scale
    return F.linear(x, conv.weight.flatten(1) * scale.unsqueeze(1), shift)


def _merge_patches(self: PatchMerging, x: Tensor) -> Tensor:
    H, W = x.shape[1:3]
    x = F.pad(x, (0, 0, 0, 1, 0, 1))  # a row and a column too many where the map is even, which the slices leave out
    rows, cols = (H + 1) // 2 * 2, (W + 1) // 2 * 2
    x = torch.cat([x[:, i:rows:2, j:cols:2] for j in range(2) for i in range(2)], dim=-1)
    return self.reduction(self.norm(x))


def _resize_position(embedding: Tensor, grid: tuple[int, int], new_grid: tuple[int, int]) -> Tensor:
    # Also where the grids agree, which a graph for all sizes cannot ask; the interpolation changes nothing then.
    patches, token = split_middle(embedding, grid)
    patches = patches.unflatten(1, grid).permute(0, 3, 1, 2)  # [1, H * W, C] -> [1, C, H, W]
    patches = F.interpolate(patches, size=new_grid, mode='bicubic', align_corners=False)
    return insert_middle(patches.flatten(2).transpose(1, 2), token.unsqueeze(1), new_grid)


def _average_bins(size: Any, bins: int) -> Tensor:
    """Return Tensor[bins, size], the weights with which adaptive average pooling sums up a side."""
    i, position = torch.arange(bins).unsqueeze(1), torch.arange(size)
    start, end = i * size // bins, ((i + 1) * size + bins - 1) // bins
    return ((position >= start) & (position < end)).float() / (end - start)


def _pool(self: nn.AdaptiveAvgPool2d, x: Tensor) -> Tensor:
    # ONNX has global pooling alone, and pooling with bins of one size.
    sizes = self.output_size if isinstance(self.output_size, tuple) else (self.output_size,) * 2
    if tuple(sizes) == (1, 1):
        return x.mean(dim=(2, 3), keepdim=True)
    down, along = (
        _average_bins(side, side if bins is None else bins) for side, bins in zip(x.shape[2:], sizes, strict=True)
    )
    return down @ x @ along.T


_SUBSTITUTES: list[tuple[Any, str, Any]] = [
    (ES2D, 'scan', _scan_phases),
    (SS2D, 'scan', _scan_cross),
    (BidirectionalMamba, 'scan', staticmethod(_scan_direction)),
    (blocks, '_pointwise_norm', _fold_pointwise_norm),
    (PatchMerging, 'forward', _merge_patches),
    (vim_backbone, 'resize_position', _resize_position),
    (nn.AdaptiveAvgPool2d, 'forward', _pool),
]


@contextmanager
def exportable() -> Iterator[None]:
    """Replace what a graph for every size of image cannot hold, for as long as the context lasts."""
    originals = [(owner, name, vars(owner)[name]) for owner, name, _ in _SUBSTITUTES]
    try:
        for owner, name, substitute in _SUBSTITUTES:
            setattr(owner, name, substitute)
        yield
    finally:
        for owner, name, original in originals:
            setattr(owner, name, original)
