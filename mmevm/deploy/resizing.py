"""Bilinear resizing in ONNX: ``Resize``, from one operator in the program that PyTorch traces.

Tracers go through PyTorch's own formula again and again to learn the size of its result, which takes two thirds of
the time of exporting a segmentor.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from onnxscript import INT64, opset18
from torch import Tensor

from mmevm.deploy.fused import define

op: Any = opset18

_interpolate = F.interpolate


def _fake(x: Tensor, size: Sequence[int], align_corners: bool) -> Tensor:
    return x.new_empty(*x.shape[:2], *size)


define('resize', 'Tensor x, SymInt[] size, bool align_corners', _fake)


def interpolate(
    input: Tensor,
    size: Any = None,
    scale_factor: Any = None,
    mode: str = 'nearest',
    align_corners: bool | None = None,
    **options: Any,
) -> Tensor:
    """Stand for ``torch.nn.functional.interpolate``, and replace only bilinear resizing to a given size."""
    if mode != 'bilinear' or size is None or scale_factor is not None or any(options.values()):
        return _interpolate(input, size, scale_factor, mode, align_corners, **options)
    size = [*size] if isinstance(size, list | tuple | torch.Size) else [size] * 2
    return torch.ops.mmevm_deploy.resize(input, size, bool(align_corners))


def _node(x: Any, size: INT64, align_corners: bool) -> Any:
    sizes = op.Concat(op.Shape(x, end=2), op.Cast(size, to=INT64.dtype), axis=0)
    mode = 'align_corners' if align_corners else 'half_pixel'
    return op.Resize(x, None, None, sizes, mode='linear', coordinate_transformation_mode=mode)


SUBSTITUTES: list[tuple[Any, str, Any]] = [(F, 'interpolate', interpolate)]
"""Module, the name in it, and what stands for that while a model is exported to ONNX."""

TRANSLATIONS: dict[Any, Any] = {torch.ops.mmevm_deploy.resize.default: _node}
"""For ``torch.onnx.export``'s ``custom_translation_table``."""
