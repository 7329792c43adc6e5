"""What detectors do with boxes, as operators of PyTorch with translations to ONNX."""

from typing import Any

import torch
import torch.nn.functional as F
from onnxscript import opset18
from torch import Tensor

op: Any = opset18

_INT64 = 7  # onnx.TensorProto.INT64


FILLED = -1e30
"""Score of what :func:`best` fills up with."""


@torch.library.custom_op('mmevm_deploy::best', mutates_args=())
def best(scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the largest scores in descending order, filled up to ``count`` where there are fewer.

    Args:
        scores (Tensor[B, N]): Scores.
        count (int): How many are returned.

    Returns:
        tuple[Tensor[B, count], Tensor[B, count]]: Scores and their int64 indices; :data:`FILLED` and 0.
    """
    missing = max(count - scores.shape[1], 0)
    top, indices = scores.topk(count - missing, dim=1)
    return F.pad(top, (0, missing), value=FILLED), F.pad(indices, (0, missing))


@best.register_fake
def _(scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    top = scores.new_empty(scores.shape[0], count)
    return top, top.to(torch.int64)


def _best_nodes(scores: Any, count: int) -> Any:
    limit, zero = op.Constant(value_ints=[count]), op.Constant(value_ints=[0])
    present = op.Min(op.Shape(scores, start=1, end=2), limit)
    top, indices = op.TopK(scores, present, axis=1)
    pads, axes = op.Concat(zero, op.Sub(limit, present), axis=0), op.Constant(value_ints=[1])
    filled = op.Pad(top, pads, op.Constant(value_float=FILLED), axes)
    return filled, op.Pad(indices, pads, op.Constant(value_int=0), axes)


@torch.library.custom_op('mmevm_deploy::nms', mutates_args=())
def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, count: int) -> tuple[Tensor, Tensor]:
    """Suppress boxes that overlap better ones, in every image of a batch.

    Args:
        boxes (Tensor[B, N, 4]): Corners.
        scores (Tensor[B, N]): Those that are not positive do not take part.
        iou_threshold (float): The overlap from which the worse box is dropped.
        count (int): How many boxes are returned.

    Returns:
        tuple[Tensor[B, count], Tensor[B, count]]: Scores of the boxes that are kept, in descending order and filled up
        with -1, and their int64 indices.
    """
    from torchvision.ops import nms as torchvision_nms

    top = scores.new_full((len(scores), count), -1.0)
    indices = torch.zeros(top.shape, dtype=torch.int64)
    for i in range(len(scores)):
        candidates = (scores[i] > 0).nonzero().squeeze(1)
        kept = candidates[torchvision_nms(boxes[i, candidates], scores[i, candidates], iou_threshold)][:count]
        top[i, : len(kept)], indices[i, : len(kept)] = scores[i, kept], kept
    return top, indices


@nms.register_fake
def _(boxes: Tensor, scores: Tensor, iou_threshold: float, count: int) -> tuple[Tensor, Tensor]:
    top = scores.new_empty(scores.shape[0], count)
    return top, top.to(torch.int64)


def _nms_nodes(boxes: Any, scores: Any, iou_threshold: float, count: int) -> Any:
    limit = op.Constant(value_ints=[count])
    one = op.Constant(value_ints=[1])
    selected = op.NonMaxSuppression(
        boxes,
        op.Unsqueeze(scores, one),
        limit,
        op.Constant(value_floats=[iou_threshold]),
        op.Constant(value_floats=[0.0]),
    )  # [kept boxes of all images, 3]: image, class, box
    where = op.Gather(selected, op.Constant(value_ints=[0, 2]), axis=1)
    none = op.Constant(value_float=-1.0)
    kept = op.ScatterND(op.Expand(none, op.Shape(scores)), where, op.GatherND(scores, where))
    filled = op.Concat(kept, op.Expand(none, op.Concat(op.Shape(scores, start=0, end=1), limit, axis=0)), axis=1)
    top, indices = op.TopK(filled, limit, axis=1)
    return top, op.Where(op.Greater(top, op.Constant(value_float=0.0)), indices, op.Constant(value_int=0))


@torch.library.custom_op('mmevm_deploy::roi_align', mutates_args=())
def roi_align(
    maps: list[Tensor],
    rois: Tensor,
    levels: Tensor,
    scales: list[float],
    size: int,
    sampling_ratio: int,
) -> Tensor:
    """Sample regions of interest, each from the map of its level.

    Args:
        maps (list[Tensor[B, C, H, W]]): A map for each level.
        rois (Tensor[R, 5]): Index of the image and corners.
        levels (Tensor[R]): Index of the map, int64.
        scales (list[float]): Cells of each map per pixel.
        size (int): Height and width of the samples.
        sampling_ratio (int): Points per bin and side; 0 adapts them to the region.

    Returns:
        Tensor[R, C, size, size].
    """
    from torchvision.ops import roi_align as torchvision_roi_align

    samples = maps[0].new_zeros(len(rois), maps[0].shape[1], size, size)
    for i, (features, scale) in enumerate(zip(maps, scales, strict=True)):
        chosen = (levels == i).nonzero().squeeze(1)
        samples[chosen] = torchvision_roi_align(features, rois[chosen], size, scale, sampling_ratio, aligned=True)
    return samples


@roi_align.register_fake
def _(maps: list[Tensor], rois: Tensor, levels: Tensor, scales: list[float], size: int, *_: Any) -> Tensor:
    return maps[0].new_empty(rois.shape[0], maps[0].shape[1], size, size)


def _roi_align_nodes(maps: Any, rois: Any, levels: Any, scales: Any, size: int, sampling_ratio: int) -> Any:
    last = op.Constant(value_ints=[-1])
    images = op.Cast(op.Gather(rois, op.Constant(value_int=0), axis=1), to=_INT64)
    corners = op.Gather(rois, op.Constant(value_ints=[1, 2, 3, 4]), axis=1)
    parts, order = [], []
    for i, (features, scale) in enumerate(zip(maps, scales, strict=True)):
        chosen = op.Reshape(op.NonZero(op.Equal(levels, op.Constant(value_int=i))), last)
        parts.append(
            op.RoiAlign(
                features,
                op.Gather(corners, chosen),
                op.Gather(images, chosen),
                output_height=size,
                output_width=size,
                sampling_ratio=sampling_ratio,
                spatial_scale=scale,
            )
        )
        order.append(chosen)
    samples = op.Concat(*parts, axis=0)
    return op.ScatterND(samples, op.Unsqueeze(op.Concat(*order, axis=0), last), samples)


TRANSLATIONS: dict[Any, Any] = {
    torch.ops.mmevm_deploy.best.default: _best_nodes,
    torch.ops.mmevm_deploy.nms.default: _nms_nodes,
    torch.ops.mmevm_deploy.roi_align.default: _roi_align_nodes,
}
"""For ``torch.onnx.export``'s ``custom_translation_table``."""
