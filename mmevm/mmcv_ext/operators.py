"""Operators of ``mmcv._ext`` by torch and torchvision.

The functions have the signatures that ``mmcv.ops`` calls, and write into the tensors that it hands over.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

_MISSING = (
    'mmcv was installed without compiled operators, and mmevm has no replacement for {name}. Install an mmcv with '
    'operators for this torch (https://mmcv.readthedocs.io/en/latest/get_started/installation.html), or build it: '
    'pip install --no-build-isolation --no-cache-dir --no-binary :all: mmcv'
)


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """Return the indices of the boxes [N, 4] that non-maximum suppression keeps, by descending score."""
    from torchvision.ops import nms as torchvision_nms

    boxes = _single(boxes).clone()
    boxes[:, 2:] += offset  # a box that ends in pixel x2 reaches to x2 + 1
    return torchvision_nms(boxes, _single(scores), iou_threshold)


def softnms(
    boxes: Tensor,
    scores: Tensor,
    dets: Tensor,
    iou_threshold: float,
    sigma: float,
    min_score: float,
    method: int,
    offset: int,
) -> Tensor:
    """Lower scores instead of removing boxes: hard (0), linear (1) or Gaussian (2).

    Writes the kept boxes and scores into the first rows of ``dets`` [N, 5]; returns their indices, by descending score.
    """
    boxes, scores = _single(boxes), _single(scores).clone()
    left = torch.arange(len(boxes), device=boxes.device)
    kept: list[Tensor] = []
    while len(left):
        best = scores[left].argmax()
        current = left[best]
        dets[len(kept), :4], dets[len(kept), 4] = boxes[current], scores[current]
        kept.append(current)
        left = torch.cat([left[:best], left[best + 1 :]])
        overlap = _overlaps(boxes[current], boxes[left], offset)
        if method == 2:
            decay = torch.exp(-(overlap**2) / sigma)
        else:
            decay = torch.where(overlap >= iou_threshold, (1 - overlap) if method == 1 else 0.0, 1.0)
        scores[left] *= decay
        left = left[scores[left] >= min_score]
    return torch.stack(kept) if kept else left


def nms_match(dets: Tensor, iou_threshold: float) -> list[list[int]]:
    """Group boxes with scores [N, 5]: each kept box with those that it suppresses, by descending score."""
    left = dets[:, 4].sort(descending=True)[1]
    groups = []
    while len(left):
        suppressed = _overlaps(dets[left[0], :4], dets[left[1:], :4], 0) >= iou_threshold
        groups.append([int(left[0]), *left[1:][suppressed].tolist()])
        left = left[1:][~suppressed]
    return groups


def _overlaps(box: Tensor, boxes: Tensor, offset: int) -> Tensor:
    """Return the intersection over union of a box [4] with boxes [N, 4], or of pairs of boxes."""
    size = (torch.minimum(box[..., 2:], boxes[..., 2:]) - torch.maximum(box[..., :2], boxes[..., :2]) + offset).clamp(0)
    common = size.prod(-1)
    return common / (_area(box, offset) + _area(boxes, offset) - common)


def _area(boxes: Tensor, offset: int) -> Tensor:
    return (boxes[..., 2:] - boxes[..., :2] + offset).prod(-1)


def bbox_overlaps(boxes1: Tensor, boxes2: Tensor, ious: Tensor, mode: int, aligned: bool, offset: int) -> None:
    """Write the intersection over union (``mode`` 0) or over the first boxes' areas (1) of pairs into ``ious``.

    Pairs are rows of both [N, 4] if ``aligned``, otherwise all of [M, 4] with all of [N, 4].
    """
    first, second = (boxes1, boxes2) if aligned else (boxes1[:, None], boxes2[None])
    size = torch.minimum(first[..., 2:], second[..., 2:]) - torch.maximum(first[..., :2], second[..., :2]) + offset
    common = size.clamp(0).prod(-1)
    area = _area(first, offset)
    union = area + _area(second, offset) - common if mode == 0 else area
    ious.copy_(common / union.clamp(min=offset))


def roi_align_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Write the average of bilinear samples in each bin of regions [K, 5] (image, x1, y1, x2, y2) into ``output``."""
    import torchvision  # noqa: F401  registers the operator

    if pool_mode != 1:
        raise NotImplementedError(_MISSING.format(name="roi_align with pool_mode='max'"))
    settings = spatial_scale, aligned_height, aligned_width, sampling_ratio, aligned
    output.copy_(torch.ops.torchvision.roi_align(_single(input), _single(rois), *settings))


def roi_align_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    grad_input: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Write the gradient of :func:`roi_align_forward` into ``grad_input``."""
    settings = spatial_scale, aligned_height, aligned_width, *grad_input.shape, sampling_ratio, aligned
    grad_input.copy_(torch.ops.torchvision._roi_align_backward(_single(grad_output), _single(rois), *settings))


def sigmoid_focal_loss_forward(
    input: Tensor, target: Tensor, weight: Tensor, output: Tensor, gamma: float, alpha: float
) -> None:
    """Write the focal loss of logits [N, C] with class indices [N] (C: background) into ``output`` [N, C]."""
    output.copy_(_sigmoid_focal_loss(input, target, weight, gamma, alpha))


def sigmoid_focal_loss_backward(
    input: Tensor, target: Tensor, weight: Tensor, grad_input: Tensor, gamma: float, alpha: float
) -> None:
    """Write the gradient of the sum of :func:`sigmoid_focal_loss_forward` into ``grad_input``."""
    _write_gradients(lambda x: _sigmoid_focal_loss(x, target, weight, gamma, alpha), (input,), None, (grad_input,))


def _sigmoid_focal_loss(logits: Tensor, target: Tensor, weight: Tensor, gamma: float, alpha: float) -> Tensor:
    logits = _single(logits)
    positive = F.one_hot(target, logits.shape[1] + 1)[:, : logits.shape[1]].bool()
    confident = logits.sigmoid()
    loss = torch.where(
        positive,
        -alpha * (1 - confident) ** gamma * F.logsigmoid(logits),
        (alpha - 1) * confident**gamma * F.logsigmoid(-logits),
    )
    return loss * weight[target][:, None] if weight.numel() else loss


def softmax_focal_loss_forward(
    input: Tensor, target: Tensor, weight: Tensor, output: Tensor, gamma: float, alpha: float
) -> None:
    """Write the focal loss of probabilities [N, C] with class indices [N] (negative: none) into ``output`` [N]."""
    probability = _single(input).gather(1, target.clamp(min=0)[:, None])[:, 0]
    tiny = torch.finfo(probability.dtype).tiny
    loss = -alpha * (1 - probability) ** gamma * probability.clamp(min=tiny).log()
    output.copy_(_weighted(loss, target, weight))


def softmax_focal_loss_backward(
    input: Tensor, target: Tensor, weight: Tensor, buff: Tensor, grad_input: Tensor, gamma: float, alpha: float
) -> None:
    """Write the gradient with respect to the logits of the sum of the losses into ``grad_input`` [N, C]."""
    softmax = _single(input)
    index = target.clamp(min=0)[:, None]
    probability = softmax.gather(1, index)[:, 0]
    tiny = torch.finfo(probability.dtype).tiny
    slope = gamma * (1 - probability) ** (gamma - 1) * probability * probability.clamp(min=tiny).log()
    buff.copy_(_weighted(alpha * (slope - (1 - probability) ** gamma), target, weight))
    grad_input.copy_(buff[:, None] * (torch.zeros_like(softmax).scatter_(1, index, 1.0) - softmax))


def _weighted(losses: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    losses = torch.where(target >= 0, losses, 0.0)
    return losses * weight[target.clamp(min=0)] if weight.numel() else losses


def deform_conv_forward(
    input: Tensor, weight: Tensor, offset: Tensor, output: Tensor, columns: Tensor, ones: Tensor, **settings: Any
) -> None:
    """Write the deformable convolution (version 1) into ``output``."""
    output.copy_(_deform_conv(settings)(input, offset, weight))


def deform_conv_backward_input(*tensors: Tensor, **settings: Any) -> None:
    """Write the gradients of :func:`deform_conv_forward` with respect to input and offset."""
    input, offset, grad_output, grad_input, grad_offset, weight, _ = tensors
    _write_gradients(_deform_conv(settings), (input, offset, weight), grad_output, (grad_input, grad_offset, None))


def deform_conv_backward_parameters(
    input: Tensor,
    offset: Tensor,
    grad_output: Tensor,
    grad_weight: Tensor,
    columns: Tensor,
    ones: Tensor,
    scale: float,
    **settings: Any,
) -> None:
    """Add ``scale`` times the gradient of :func:`deform_conv_forward` with respect to the weight to ``grad_weight``."""
    gradient = torch.zeros_like(grad_weight)
    # The operator is linear in the weight: its value is of no importance to the gradient.
    _write_gradients(_deform_conv(settings), (input, offset, gradient.clone()), grad_output, (None, None, gradient))
    grad_weight.add_(gradient, alpha=scale)


def modulated_deform_conv_forward(*tensors: Tensor, **settings: Any) -> None:
    """Write the modulated deformable convolution (version 2) into ``output``."""
    input, weight, bias, _, offset, mask, output, _ = tensors
    output.copy_(_deform_conv(settings)(input, offset, weight, mask, bias))


def modulated_deform_conv_backward(*tensors: Tensor, **settings: Any) -> None:
    """Write the gradients of :func:`modulated_deform_conv_forward`."""
    input, weight, bias, _, offset, mask, _, grad_input, *grads, grad_output = tensors
    grad_weight, grad_bias, grad_offset, grad_mask = grads
    targets = grad_input, grad_offset, grad_weight, grad_mask, grad_bias if settings['with_bias'] else None
    _write_gradients(_deform_conv(settings), (input, offset, weight, mask, bias), grad_output, targets)


def _deform_conv(settings: dict[str, Any]) -> Callable[..., Tensor]:
    """Return torchvision's deformable convolution with mmcv's settings, whose names differ between versions 1 and 2."""
    from torchvision.ops import deform_conv2d

    def pair(name: str, old: str) -> tuple[int, int]:
        height, width = (f'{name}_h', f'{name}_w') if f'{name}_h' in settings else (f'{old}H', f'{old}W')
        return settings[height], settings[width]

    stride, padding, dilation = pair('stride', 'd'), pair('pad', 'pad'), pair('dilation', 'dilation')

    def run(input: Tensor, offset: Tensor, weight: Tensor, mask: Tensor | None = None, bias: Tensor | None = None):
        bias = bias if settings.get('with_bias') else None
        return deform_conv2d(input, offset, weight, bias, stride, padding, dilation, mask)

    return run


def ms_deform_attn_forward(
    value: Tensor, shapes: Tensor, starts: Tensor, locations: Tensor, weights: Tensor, im2col_step: int
) -> Tensor:
    """Return mmcv's own PyTorch form of multi-scale deformable attention, [B, queries, C]."""
    from mmcv.ops.multi_scale_deform_attn import multi_scale_deformable_attn_pytorch

    return multi_scale_deformable_attn_pytorch(value, shapes, locations, weights)


def ms_deform_attn_backward(
    value: Tensor,
    shapes: Tensor,
    starts: Tensor,
    locations: Tensor,
    weights: Tensor,
    grad_output: Tensor,
    grad_value: Tensor,
    grad_locations: Tensor,
    grad_weights: Tensor,
    im2col_step: int,
) -> None:
    """Write the gradients of :func:`ms_deform_attn_forward`."""

    def run(value: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
        return ms_deform_attn_forward(value, shapes, starts, locations, weights, im2col_step)

    _write_gradients(run, (value, locations, weights), grad_output, (grad_value, grad_locations, grad_weights))


def get_compiler_version() -> str:
    """Return what ``mmcv.utils.collect_env`` prints."""
    return 'none (mmevm.mmcv_ext)'


get_compiling_cuda_version = get_compiler_version


def _single(x: Tensor) -> Tensor:
    """At least float32, which torchvision's operators need on CPUs."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def _write_gradients(
    function: Callable[..., Tensor],
    inputs: Sequence[Tensor],
    grad_output: Tensor | None,
    targets: Sequence[Tensor | None],
) -> None:
    """Write the gradients of a function with respect to the inputs that have a target into it."""
    with torch.enable_grad():
        inputs = [x.detach().requires_grad_(target is not None) for x, target in zip(inputs, targets, strict=True)]
        output = function(*inputs)
        grad_output = torch.ones_like(output) if grad_output is None else grad_output
        wanted = [x for x in inputs if x.requires_grad]
        gradients = torch.autograd.grad(output, wanted, grad_output)
    for target, gradient in zip((target for target in targets if target is not None), gradients, strict=True):
        target.copy_(gradient)


def __getattr__(name: str) -> Callable[..., Any]:
    """Return, for every other operator, a function that says what to install."""
    if name.startswith('__'):
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')

    def missing(*args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError(_MISSING.format(name=name))

    missing.__name__ = name
    return missing
