"""mmdet's detectors with a dense head as they are exported, and what all detectors share.

mmdet's prediction takes images one by one and keeps as many boxes as pass its thresholds. Here a batch has a fixed
number of candidates, and those that mmdet would drop have a score of -1.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mmevm.deploy.models import Difference, ExportedModel, relative
from mmevm.deploy.operators import FILLED
from mmevm.errors import UsageError

DROPPED = -1.0
"""Score of a candidate that takes no part; outputs have 0."""


def require(condition: bool, part: Any, what: str) -> None:
    if not condition:
        raise UsageError(f'{type(part).__name__} cannot be exported: {what}.')


def check_dense_head(head: Any) -> None:
    """Refuse heads that predict otherwise than :func:`candidates`."""
    from mmdet.models.dense_heads import GFLHead, RPNHead
    from mmdet.models.dense_heads.base_dense_head import BaseDenseHead

    kind = type(head)
    known = {base._predict_by_feat_single for base in (BaseDenseHead, GFLHead, RPNHead)}
    require(
        getattr(kind, 'predict_by_feat', None) is BaseDenseHead.predict_by_feat
        and kind._predict_by_feat_single in known
        and kind._bbox_post_process in (BaseDenseHead._bbox_post_process, RPNHead._bbox_post_process),
        head,
        'it predicts boxes in a way of its own',
    )
    require(hasattr(head, 'loss_cls'), head, "MMDetection cannot predict with it; `type='mmevm.SSDHead'` can")
    custom = getattr(head.loss_cls, 'custom_cls_channels', False)
    require(not custom, head, f'{type(head.loss_cls).__name__} has an activation of its own')


def count_of(part: Any, cfg: Any, *keys: str) -> int:
    """Return how many boxes per image a ``test_cfg`` asks for.

    Args:
        part (nn.Module): Whose it is.
        cfg (ConfigDict): The ``test_cfg``.
        *keys (str): What it must have besides ``nms`` and ``max_per_img``.

    Raises:
        UsageError: It lacks a key, or has a value that a file cannot have.
    """
    missing = [key for key in ('nms', 'max_per_img', *keys) if (cfg or {}).get(key) is None]
    require(not missing, part, f'its test_cfg lacks {", ".join(missing)}; set them, e.g. by --cfg-options')
    count = cfg['max_per_img']
    counts = isinstance(count, int) and count > 0
    require(counts, part, f'its test_cfg has max_per_img={count}; a file has a fixed number of boxes, such as 100')
    check_nms(part, cfg['nms'])
    threshold = cfg.get('mask_thr_binary', 0.5)
    inside = isinstance(threshold, int | float) and 0 < threshold < 1
    require(inside, part, f'its test_cfg has mask_thr_binary={threshold}, not a number between 0 and 1')
    for key in ('score_thr', 'min_bbox_size', 'nms_pre'):
        value = cfg.get(key, 0)
        require(isinstance(value, int | float), part, f'its test_cfg has {key}={value}, not a number')
    return count


def check_nms(part: Any, nms: Any) -> None:
    unknown = set(nms) - {'type', 'iou_threshold', 'class_agnostic', 'split_thr'}
    kind = nms.get('type', 'nms')
    name = kind if isinstance(kind, str) else kind.__name__
    require(name.rpartition('.')[2] == 'nms' and not unknown, part, f'its nms is {dict(nms)}, not plain nms')
    overlap = nms.get('iou_threshold')
    inside = isinstance(overlap, int | float) and 0 <= overlap <= 1
    require(inside, part, f'its nms has iou_threshold={overlap}, not a number from 0 to 1')


class Candidates(NamedTuple):
    """The best boxes of every level of a dense head.

    Attributes:
        boxes (Tensor[B, N, 4]): Corners.
        scores (Tensor[B, N]): :data:`DROPPED` takes no part.
        labels (Tensor[B, N]): Classes.
        chosen (list[Tensor[B, K]]): Indices of each level's priors.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    chosen: list[Tensor]


def candidates(head: Any, maps: Sequence[Any], size: Sequence[Any], cfg: Any) -> Candidates:
    """Decode the best boxes of every level of a dense head.

    Args:
        head (nn.Module): A head of mmdet, checked by :func:`check_dense_head`.
        maps (Sequence): What it returns: lists of maps of scores, of boxes and, in some heads, of score factors.
        size (Sequence[int]): Height and width of the images, at which boxes are cut.
        cfg (ConfigDict): Its ``test_cfg``.
    """
    scores, boxes, *factors = maps
    rpn = type(head).__name__ == 'RPNHead'  # boxes of different levels do not suppress each other
    best = [_best_of_level(head, cfg, level) for level in scores]
    score = torch.cat([part[0] for part in best], dim=1)
    label = torch.cat([torch.full_like(part[1], i) if rpn else part[1] for i, part in enumerate(best)], dim=1)
    chosen = [part[2] for part in best]

    width = 4 * (head.reg_max + 1) if hasattr(head, 'integral') else head.bbox_coder.encode_size
    box = torch.ops.mmevm_deploy.take(boxes, chosen, width).flatten(0, 1)
    priors = chosen_priors(head, scores, chosen).flatten(0, 1)
    if hasattr(head, 'integral'):  # GFL's distributions, in units of the level's stride
        strides = [
            torch.full_like(index, stride[0])
            for index, stride in zip(chosen, head.prior_generator.strides, strict=True)
        ]
        priors, box = head.anchor_center(priors), head.integral(box) * torch.cat(strides, dim=1).view(-1, 1)
    box = head.bbox_coder.decode(priors, box, max_shape=tuple(size)).unflatten(0, score.shape)
    for quality in factors:
        factor = torch.ops.mmevm_deploy.take(quality, chosen, 1).squeeze(-1).sigmoid()
        score = torch.where(score > 0, score * factor, DROPPED)
    smallest = cfg.get('min_bbox_size', -1)
    if smallest >= 0:
        fits = ((box[..., 2:] - box[..., :2]) > smallest).all(dim=-1)
        score = torch.where(fits, score, DROPPED)
    return Candidates(box, score, label, chosen)


def chosen_priors(head: Any, maps: Sequence[Tensor], chosen: Sequence[Tensor], **options: Any) -> Tensor:
    """Return the priors of candidates: Tensor[B, N, …]; ``options`` are those of mmdet's ``grid_priors``."""
    sizes = [level.shape[2:] for level in maps]
    levels = head.prior_generator.grid_priors(sizes, device=maps[0].device, **options)
    return torch.cat([prior[index] for prior, index in zip(levels, chosen, strict=True)], dim=1)


def _best_of_level(head: Any, cfg: Any, score: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the scores, labels and priors of the best boxes of a level, as many whatever the size of the map."""
    B, classes = score.shape[0], head.cls_out_channels
    score = score.permute(0, 2, 3, 1).reshape(B, -1, classes)
    if not head.use_sigmoid_cls:
        score = score.softmax(dim=-1)[..., :-1]
    classes = score.shape[2]
    score, most = score.flatten(1), cfg.get('nms_pre', -1)
    if most > 0:
        score, chosen = torch.ops.mmevm_deploy.best(score, most)
    else:
        chosen = torch.arange(score.shape[1], device=score.device).expand(B, -1)
    there = score > FILLED
    score = score.sigmoid() if head.use_sigmoid_cls else score
    threshold = 0 if type(head).__name__ == 'RPNHead' else cfg.get('score_thr', 0)
    return torch.where(there & (score > threshold), score, DROPPED), chosen % classes, chosen // classes


def suppress(
    boxes: Tensor, scores: Tensor, labels: Tensor, nms: Any, count: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the best boxes that do not overlap better ones of their class.

    Args:
        boxes (Tensor[B, N, 4]): Corners.
        scores (Tensor[B, N]): :data:`DROPPED` takes no part.
        labels (Tensor[B, N]): Classes.
        nms (ConfigDict): mmcv's options.
        count (int): How many are returned.

    Returns:
        tuple[Tensor[B, count, 4], Tensor[B, count], Tensor[B, count], Tensor[B, count]]: Boxes, scores, int64 labels
        and indices of the given boxes in descending order of the scores, filled up with 0, 0, -1 and 0.
    """
    apart = boxes
    if not nms.get('class_agnostic', False):
        # As mmcv does it: classes lie beside each other, further apart than the largest coordinate.
        largest = torch.where(scores.unsqueeze(-1) > 0, boxes, 0).amax(dim=(1, 2), keepdim=True)
        apart = boxes + labels.unsqueeze(-1).to(boxes) * (largest + 1)
    top, index = torch.ops.mmevm_deploy.nms(apart, scores, nms['iou_threshold'], count)
    kept = top > 0
    boxes = torch.where(kept.unsqueeze(-1), boxes.gather(1, index.unsqueeze(-1).expand(-1, -1, 4)), 0)
    labels = torch.where(kept, labels.gather(1, index), -1)
    return boxes, torch.where(kept, top, 0), labels, torch.where(kept, index, 0)


class ExportedDetector(ExportedModel):
    """What detectors have in common: mmdet's prediction to compare with.

    Args:
        model (nn.Module): A detector of mmdet.
        count (int): Boxes per image.
        outputs (tuple[str, ...]): Names of results besides boxes, scores and labels.
    """

    def __init__(self, model: Any, count: int, outputs: tuple[str, ...] = ()) -> None:
        super().__init__(model, ['boxes', 'scores', 'labels', *outputs], 'detection')
        self.count = count

    def features(self, images: Tensor) -> Any:
        """Return the maps of backbone and neck."""
        return self.model.extract_feat(self.pad(images))

    def expected(self, images: Tensor) -> tuple[Tensor, ...]:
        """The predictions of mmdet, filled up to the same number."""
        images = self.preprocessing(images)
        return *self.fill(self.predictions(images)), *self.maps(images)

    def predictions(self, images: Tensor) -> list[Any]:
        """Return mmdet's ``InstanceData`` for each image, in pixels of the input."""
        return [
            sample.pred_instances for sample in self.model.predict(self.pad(images), samples(images), rescale=False)
        ]

    def maps(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return the maps of :attr:`checked`."""
        raise NotImplementedError

    def fill(self, instances: Sequence[Any]) -> tuple[Tensor, ...]:
        """Return boxes, scores and labels of all images as tensors of the fixed number."""
        return tuple(
            torch.stack([fill_up(getattr(instance, name), self.count, value) for instance in instances])
            for name, value in (('bboxes', 0.0), ('scores', 0.0), ('labels', -1))
        )

    def compare(self, got: Sequence[Tensor], images: Tensor) -> list[Difference]:
        """Compare each box with the nearest of its label, and the maps before thresholds and suppression."""
        n, expected = len(self.outputs), self.expected(images)
        differences = [relative(*item) for item in zip(self.checked, got[n:], expected[n:], strict=True)]
        pairs, missed = _match_all(got, expected)
        for name, index, allowed in (('boxes (pixels)', 0, 0.1), ('scores', 1, 1e-3)):
            differences.append(_largest(name, got[index], expected[index], pairs, allowed))
        if n > 3:
            differences.append(self.compare_masks(got[3], expected[3], pairs))
        # Rounding may tip a box over a threshold, or an overlap.
        share = missed / max(missed + len(pairs), 1)
        return [*differences, Difference('boxes without a counterpart (share)', share, 0.02)]

    def compare_masks(self, got: Tensor, expected: Tensor, pairs: Sequence[tuple[int, int, int]]) -> Difference:
        """Compare the masks of equal objects."""
        return _largest('masks', got, expected, pairs, 0.01)


def fill_up(rows: Tensor, count: int, value: float) -> Tensor:
    """Append rows of one value: Tensor[n, ...] -> Tensor[count, ...]."""
    return torch.cat([rows, rows.new_full((count - len(rows), *rows.shape[1:]), value)])


def _largest(
    name: str, got: Tensor, expected: Tensor, pairs: Sequence[tuple[int, int, int]], allowed: float
) -> Difference:
    return Difference(
        name, max(((got[i, j] - expected[i, k]).abs().max().item() for i, j, k in pairs), default=0.0), allowed
    )


def _match_all(got: Sequence[Tensor], expected: Sequence[Tensor]) -> tuple[list[tuple[int, int, int]], int]:
    """Return the image and indices of equal objects, and how many objects have no counterpart."""
    found, missed = [], 0
    for i in range(len(expected[0])):
        pairs, missing = _match([tensor[i] for tensor in got[:3]], [tensor[i] for tensor in expected[:3]])
        found += [(i, *pair) for pair in pairs]
        missed += missing
    return found, missed


def _match(got: Sequence[Tensor], expected: Sequence[Tensor]) -> tuple[list[tuple[int, int]], int]:
    """Return pairs of indices of equal objects, and how many objects have none and should."""
    boxes, scores, labels = got
    free = labels >= 0
    pairs, missing = [], []
    for k in (expected[2] >= 0).nonzero().flatten().tolist():
        distance = (boxes - expected[0][k]).abs().amax(dim=1) + (scores - expected[1][k]).abs()
        distance = distance.masked_fill(~free | (labels != expected[2][k]), torch.inf)
        j = int(distance.argmin())
        if distance[j] > 1:
            missing.append(k)
            continue
        free[j] = False
        pairs.append((j, k))
    missed = sum(not _may_be_missed(expected, k, got) for k in missing)
    return pairs, missed + sum(not _may_be_missed(got, j, expected) for j in free.nonzero().flatten().tolist())


def _may_be_missed(found: Sequence[Tensor], k: int, others: Sequence[Tensor]) -> bool:
    """Return whether rounding decided about an object: a rival of its class, or the last of all, has its score."""
    score, label = found[1][k], found[2][k]
    tied = (others[1] - score).abs() <= 1e-4 * score
    last = others[2][-1] >= 0 and tied[-1]
    return bool(last or (tied & (others[2] == label)).any())


def samples(images: Tensor) -> list[Any]:
    """Return mmdet's data samples of images of one size."""
    from mmdet.structures import DetDataSample

    size = tuple(images.shape[2:])
    shapes = dict.fromkeys(('img_shape', 'ori_shape', 'pad_shape', 'batch_input_shape'), size)
    return [DetDataSample(metainfo=dict(shapes, scale_factor=(1.0, 1.0))) for _ in range(len(images))]


class ExportedDense(ExportedDetector):
    """A single-stage detector with a dense head.

    Args:
        model (nn.Module): A ``SingleStageDetector``.

    Raises:
        UsageError: The head predicts in a way of its own.
    """

    def __init__(self, model: Any) -> None:
        check_dense_head(model.bbox_head)
        require(type(model.bbox_head).__name__ != 'RPNHead', model.bbox_head, 'it proposes regions without classes')
        super().__init__(model, count_of(model.bbox_head, model.bbox_head.test_cfg))
        with torch.no_grad():
            maps = model.bbox_head(model.extract_feat(torch.zeros(1, 3, 64, 64)))
        kinds = zip(('class', 'box', 'quality'), maps, strict=False)
        self.checked = [f'{kind} map {level}' for kind, levels in kinds for level in range(len(levels))]

    def results(self, images: Tensor) -> tuple[Tensor, ...]:
        """Args: images (Tensor[B, 3, H, W]). Returns: Boxes, scores, labels; maps."""
        head = self.model.bbox_head
        maps = head(self.features(images))
        found = candidates(head, maps, images.shape[2:], head.test_cfg)
        return *suppress(*found[:3], head.test_cfg.nms, self.count)[:3], *(level for kind in maps for level in kind)

    def maps(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return the maps of the head."""
        return tuple(level for kind in self.model.bbox_head(self.features(images)) for level in kind)
