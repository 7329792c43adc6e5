"""Layers as they are exported: forms with one graph for every size of image, and the scan as one operator."""

import math
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from typing import Any

import torch
import torch.nn.functional as F
from onnxscript import opset18
from torch import Tensor, nn

from mmevm.backbones import vim as vim_backbone
from mmevm.deploy import operators  # noqa: F401 (registers them)
from mmevm.deploy.functions import projected_scan_nodes, selective_scan_nodes, visual_scan_node
from mmevm.layers import vim
from mmevm.layers.basic import is_plain
from mmevm.layers.blocks import InvertedResidual
from mmevm.layers.mixers import ES2D, ROUTES, SS2D, ScanMixer
from mmevm.layers.patch import PatchMerging
from mmevm.layers.vim import BidirectionalMamba, causal_conv, insert_middle, split_middle
from mmevm.ops import Route, es2d_routes
from mmevm.ops.routes import flatten

op: Any = opset18


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
    y = causal_conv(x, conv, reverse, 'silu')
    return _scan_map(y, x_proj.weight.unsqueeze(0), parameters, vim.ROUTES[1:] if reverse else vim.ROUTES[:1], 1)


def _convolve_residual(self: InvertedResidual, x: Tensor) -> Tensor:
    # Channels first, where runtimes fold the norms and activations into the convolutions.
    x = x.permute(0, 3, 1, 2)
    y = F.relu(self.conv_dw(F.relu(self.conv_pw(x))))
    gate = self.se.conv_expand(F.relu(self.se.conv_reduce(y.mean(dim=(2, 3), keepdim=True))))
    y = self.conv_pw2(y * gate.sigmoid())
    return (x + y).permute(0, 2, 3, 1)


def _merge_nodes(x: Any) -> Any:
    one, two, last = (op.Constant(value_ints=[value]) for value in (1, 2, -1))
    B, H, W, C = (op.Shape(x, start=i, end=i + 1) for i in range(4))
    none = op.Constant(value_ints=[0, 0])
    x = op.Pad(x, op.Concat(none, op.Mod(H, two), op.Mod(W, two), axis=0), None, op.Constant(value_ints=[1, 2]))
    rows, cols = op.Div(op.Add(H, one), two), op.Div(op.Add(W, one), two)
    patches = op.Reshape(x, op.Concat(B, rows, two, cols, two, C, axis=0))
    patches = op.Transpose(patches, perm=[0, 1, 3, 4, 2, 5])  # the column varies slowest
    return op.Reshape(patches, op.Concat(B, rows, cols, last, axis=0))


def _gelu_nodes(x: Any, approximate: str = 'none') -> Any:
    # In the order that runtimes know as one operator; ONNX has it from opset 20 on.
    if approximate != 'none':
        raise NotImplementedError('GELU by tanh')
    root, one, half = (op.Constant(value_float=value) for value in (math.sqrt(2), 1.0, 0.5))
    return op.Mul(op.Mul(x, op.Add(op.Erf(op.Div(x, root)), one)), half)


def _merge_patches(self: PatchMerging, x: Tensor) -> Tensor:
    return self.reduction(self.norm(torch.ops.mmevm_deploy.merge_patches(x)))


def _resize_position(embedding: Tensor, grid: tuple[int, int], new_grid: tuple[int, int]) -> Tensor:
    # Also where the grids agree, which a graph for all sizes cannot ask; the interpolation changes nothing then.
    patches, token = split_middle(embedding, grid)
    patches = patches.unflatten(1, grid).permute(0, 3, 1, 2)  # [1, H * W, C] -> [1, C, H, W]
    patches = F.interpolate(patches, size=new_grid, mode='bicubic', align_corners=False)
    return insert_middle(patches.flatten(2).transpose(1, 2), token.unsqueeze(1), new_grid)


def _average_bins(size: Any, bins: int, device: torch.device) -> Tensor:
    """Return Tensor[bins, size], the weights with which adaptive average pooling sums up a side."""
    i, position = torch.arange(bins, device=device).unsqueeze(1), torch.arange(size, device=device)
    start, end = i * size // bins, ((i + 1) * size + bins - 1) // bins
    return ((position >= start) & (position < end)).float() / (end - start)


def _pool(self: nn.AdaptiveAvgPool2d, x: Tensor) -> Tensor:
    # ONNX has global pooling alone, and pooling with bins of one size.
    sizes = self.output_size if isinstance(self.output_size, tuple) else (self.output_size,) * 2
    if tuple(sizes) == (1, 1):
        return x.mean(dim=(2, 3), keepdim=True)
    down, along = (
        _average_bins(side, side if bins is None else bins, x.device)
        for side, bins in zip(x.shape[2:], sizes, strict=True)
    )
    return down @ x @ along.T


def _upsample(self: Any, x: Tensor) -> Tensor:
    # mmseg's rounds products with a float, which makes the sizes of a traced graph constants.
    scale = self.scale_factor if isinstance(self.scale_factor, tuple) else (self.scale_factor,) * 2
    size = self.size
    if not size:
        ratios = [Fraction(factor).limit_denominator(1000) for factor in scale]
        size = [side * r.numerator // r.denominator for side, r in zip(x.shape[2:], ratios, strict=True)]
    return F.interpolate(x, size, mode=self.mode, align_corners=self.align_corners)


TRANSLATIONS: dict[Any, Any] = {
    torch.ops.mmevm_deploy.visual_scan.default: visual_scan_node,
    torch.ops.mmevm_deploy.merge_patches.default: _merge_nodes,
    torch.ops.aten.gelu.default: _gelu_nodes,
    # Scans that a module calls itself.
    torch.ops.mmevm.visual_scan.default: projected_scan_nodes,
    torch.ops.mmevm.selective_scan.default: selective_scan_nodes,
}
"""For ``torch.onnx.export``'s ``custom_translation_table``."""

_SUBSTITUTES: list[tuple[Any, str, Any]] = [
    (ES2D, 'scan', _scan_phases),
    (SS2D, 'scan', _scan_cross),
    (BidirectionalMamba, 'scan', staticmethod(_scan_direction)),
    (InvertedResidual, 'forward', _convolve_residual),
    (PatchMerging, 'forward', _merge_patches),
    (vim_backbone, 'resize_position', _resize_position),
    (nn.AdaptiveAvgPool2d, 'forward', _pool),
]


@contextmanager
def exportable(further: Sequence[tuple[Any, str, Any]] = ()) -> Iterator[None]:
    """Replace what a graph for every size of image cannot hold, for as long as the context lasts.

    Args:
        further (Sequence[tuple[Any, str, Any]]): Further owners, names in them, and what stands for those.
    """
    substitutes = [*_SUBSTITUTES, *further]
    if 'mmseg.models.utils.wrappers' in sys.modules:
        substitutes.append((sys.modules['mmseg.models.utils.wrappers'].Upsample, 'forward', _upsample))
    originals = [(owner, name, vars(owner)[name]) for owner, name, _ in substitutes]
    try:
        for owner, name, substitute in substitutes:
            setattr(owner, name, substitute)
        yield
    finally:
        for owner, name, original in originals:
            setattr(owner, name, original)
