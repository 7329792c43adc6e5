"""mmdet's detectors with regions of interest as they are exported: Faster and Mask R-CNN."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mmevm.deploy.detectors import (
    DROPPED,
    ExportedDense,
    ExportedDetector,
    candidates,
    check_dense_head,
    count_of,
    require,
    samples,
    suppress,
)
from mmevm.deploy.instances import ExportedInstances, is_instance_head
from mmevm.errors import UsageError


def exported_detector(model: Any) -> ExportedDetector:
    """Return a detector of mmdet as it is exported.

    Raises:
        UsageError: Its prediction is not one that this module knows.
    """
    from mmdet.models.detectors import SingleStageDetector, TwoStageDetector

    for kind in (TwoStageDetector, SingleStageDetector):
        own = isinstance(model, kind) and type(model).predict is not kind.predict
        require(not own, model, 'it predicts in a way of its own')  # PanopticFPN and MaskFormer: more than objects
    if isinstance(model, TwoStageDetector):
        return ExportedTwoStage(model)
    if isinstance(model, SingleStageDetector):
        return ExportedInstances(model) if is_instance_head(model.bbox_head) else ExportedDense(model)
    raise UsageError(
        f'Detectors of the type {type(model).__name__} are not exported, only those with a dense head or RoIs.'
    )


class ExportedTwoStage(ExportedDetector):
    """Faster or Mask R-CNN.

    Args:
        model (nn.Module): A ``TwoStageDetector``.

    Raises:
        UsageError: A part of it predicts in a way of its own.
    """

    def __init__(self, model: Any) -> None:
        from mmdet.models.roi_heads import StandardRoIHead
        from mmdet.models.roi_heads.bbox_heads import BBoxHead
        from mmdet.models.roi_heads.mask_heads import FCNMaskHead

        heads = model.roi_head
        require(model.with_rpn, model, 'it has no RPN')
        require(type(heads) is StandardRoIHead, heads, 'only StandardRoIHead is')
        require(not heads.with_shared_head, heads, 'it has a shared head')
        box = heads.bbox_head
        own = type(box)._predict_by_feat_single is not BBoxHead._predict_by_feat_single
        require(not own and box.with_reg and not box.custom_cls_channels, box, 'it predicts boxes in a way of its own')
        check_dense_head(model.rpn_head)
        count_of(model.rpn_head, model.rpn_head.test_cfg)
        keys = ('score_thr', *(['mask_thr_binary'] if heads.with_mask else []))
        count = count_of(heads, heads.test_cfg, *keys)
        if heads.with_mask:
            require(type(heads.mask_head) is FCNMaskHead, heads.mask_head, 'only FCNMaskHead is')
        for extractor in [heads.bbox_roi_extractor, *([heads.mask_roi_extractor] if heads.with_mask else [])]:
            _check_extractor(extractor)
        super().__init__(model, count, ('masks',) if heads.with_mask else ())
        levels = range(len(model.rpn_head.prior_generator.strides))
        self.checked = [f'{kind} map {level}' for kind in ('objectness', 'proposal') for level in levels]
        self.options = {'mask_threshold': heads.test_cfg.mask_thr_binary} if heads.with_mask else {}

    def results(self, images: Tensor) -> tuple[Tensor, ...]:
        """Args: images (Tensor[B, 3, H, W]). Returns: Boxes, scores, labels, masks; maps of the RPN."""
        model, heads = self.model, self.model.roi_head
        features, size = self.features(images), images.shape[2:]
        maps = model.rpn_head(features)
        cfg = model.rpn_head.test_cfg
        proposals, scores, *_ = suppress(*candidates(model.rpn_head, maps, size, cfg)[:3], cfg.nms, cfg.max_per_img)
        found = self._classify(features, proposals, scores, size)
        found = suppress(*found, heads.test_cfg.nms, self.count)[:3]
        masks = (self._masks(features, found[0], found[2]),) if heads.with_mask else ()
        return *found, *masks, *(level for kind in maps for level in kind)

    def _classify(self, features: Any, proposals: Tensor, found: Tensor, size: Any) -> tuple[Tensor, Tensor, Tensor]:
        """Return boxes Tensor[B, N, 4], scores and labels of every class of every proposal."""
        heads, B = self.model.roi_head, proposals.shape[0]
        head, extractor = heads.bbox_head, heads.bbox_roi_extractor
        rois = as_rois(proposals)
        score, box = head(_extract(extractor, features, rois))
        score = score.softmax(dim=-1)[:, :-1]  # the last is the background
        C = score.shape[1]
        rois = rois[:, 1:].unsqueeze(1).expand(-1, 1 if head.reg_class_agnostic else C, -1)
        box = head.bbox_coder.decode(rois.reshape(-1, 4), box.reshape(-1, 4), max_shape=tuple(size))
        box = box.unflatten(0, (B, -1, rois.shape[1])).expand(-1, -1, C, -1).flatten(1, 2)
        score = score.unflatten(0, (B, -1))
        taken = (score > heads.test_cfg.score_thr) & (found > 0).unsqueeze(-1)
        score = torch.where(taken, score, DROPPED).flatten(1)
        label = torch.arange(C, device=score.device).repeat(proposals.shape[1]).expand(B, -1)
        return box, score, label

    def _masks(self, features: Any, boxes: Tensor, labels: Tensor) -> Tensor:
        """Return the probability of each object in a grid over its box: Tensor[B, K, h, w]."""
        heads = self.model.roi_head
        masks = heads.mask_head(_extract(heads.mask_roi_extractor, features, as_rois(boxes)))
        labels = labels.flatten()
        chosen = torch.zeros_like(labels) if heads.mask_head.class_agnostic else labels.clamp(min=0)
        masks = masks.gather(1, chosen.view(-1, 1, 1, 1).expand(-1, -1, *masks.shape[2:])).squeeze(1).sigmoid()
        masks = torch.where(labels.view(-1, 1, 1) >= 0, masks, 0)
        return masks.unflatten(0, (boxes.shape[0], -1))

    def predictions(self, images: Tensor) -> list[Any]:
        """Return mmdet's boxes, before its mask head pastes their masks."""
        features = self.features(images)
        batch = samples(images)
        metas = [sample.metainfo for sample in batch]
        proposals = self.model.rpn_head.predict(features, batch, rescale=False)
        return self.model.roi_head.predict_bbox(features, metas, proposals, self.model.roi_head.test_cfg)

    def expected(self, images: Tensor) -> tuple[Tensor, ...]:
        """The predictions of mmdet, with its masks of the boxes."""
        heads = self.model.roi_head
        if not heads.with_mask:
            return super().expected(images)
        from mmdet.structures.bbox import bbox2roi

        boxes, scores, labels, *maps = super().expected(images)
        features = self.features(self.preprocessing(images))
        masks = heads._mask_forward(features, bbox2roi(list(boxes)))['mask_preds']
        rows = torch.arange(len(masks))
        chosen = torch.zeros_like(rows) if heads.mask_head.class_agnostic else labels.flatten().clamp(min=0)
        masks = masks[rows, chosen].sigmoid() * (labels >= 0).view(-1, 1, 1)
        return boxes, scores, labels, masks.unflatten(0, (len(boxes), -1)), *maps

    def maps(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return the maps of the RPN."""
        return tuple(level for kind in self.model.rpn_head(self.features(images)) for level in kind)


def _check_extractor(extractor: Any) -> None:
    from mmcv.ops import RoIAlign
    from mmdet.models.roi_heads.roi_extractors import SingleRoIExtractor

    require(type(extractor) is SingleRoIExtractor, extractor, 'only SingleRoIExtractor is')
    for layer in extractor.roi_layers:
        fits = isinstance(layer, RoIAlign) and layer.pool_mode == 'avg' and layer.aligned
        require(fits and len(set(layer.output_size)) == 1, layer, 'only aligned square RoIAlign with means is')


def as_rois(boxes: Tensor) -> Tensor:
    """Args: boxes (Tensor[B, N, 4]). Returns: Tensor[B * N, 5], the index of the image and the box."""
    image = torch.arange(boxes.shape[0], device=boxes.device).view(-1, 1, 1).expand(-1, boxes.shape[1], 1)
    return torch.cat([image.to(boxes), boxes], dim=2).flatten(0, 1)


def _extract(extractor: Any, features: Sequence[Tensor], rois: Tensor) -> Tensor:
    layers = extractor.roi_layers
    features = list(features[: len(layers)])
    levels = extractor.map_roi_levels(rois, len(features))
    scales = [layer.spatial_scale for layer in layers]
    size, ratio = layers[0].output_size[0], layers[0].sampling_ratio
    return torch.ops.mmevm_deploy.roi_align(features, rois, levels, scales, size, ratio)
