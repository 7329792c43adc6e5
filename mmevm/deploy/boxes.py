"""The operators of detectors in ONNX."""

from typing import Any

import torch
from onnxscript import opset18

from mmevm.deploy.operators import FILLED

op: Any = opset18

_INT64 = 7  # onnx.TensorProto.INT64


def _best_nodes(scores: Any, count: int) -> Any:
    limit, zero = op.Constant(value_ints=[count]), op.Constant(value_ints=[0])
    present = op.Min(op.Shape(scores, start=1, end=2), limit)
    top, indices = op.TopK(scores, present, axis=1)
    pads, axes = op.Concat(zero, op.Sub(limit, present), axis=0), op.Constant(value_ints=[1])
    filled = op.Pad(top, pads, op.Constant(value_float=FILLED), axes)
    return filled, op.Pad(indices, pads, op.Constant(value_int=0), axes)


def _take_nodes(maps: Any, chosen: Any, width: int) -> Any:
    sizes, last = op.Constant(value_ints=[0, -1, width]), op.Constant(value_ints=[-1])
    parts = [
        op.GatherND(op.Reshape(op.Transpose(level, perm=[0, 2, 3, 1]), sizes), op.Unsqueeze(index, last), batch_dims=1)
        for level, index in zip(maps, chosen, strict=True)
    ]
    return op.Concat(*parts, axis=1)


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
    torch.ops.mmevm_deploy.take.default: _take_nodes,
    torch.ops.mmevm_deploy.nms.default: _nms_nodes,
    torch.ops.mmevm_deploy.roi_align.default: _roi_align_nodes,
}
"""For ``torch.onnx.export``'s ``custom_translation_table``."""
