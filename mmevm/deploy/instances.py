"""RTMDet-Ins as it is exported: a dense head with a convolution of its own for the mask of every object."""

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mmevm.deploy.detectors import (
    ExportedDetector,
    candidates,
    chosen_priors,
    count_of,
    fill_up,
    require,
    suppress,
)
from mmevm.deploy.models import Difference


def is_instance_head(head: Any) -> bool:
    """Return whether a head predicts masks as RTMDet-Ins does."""
    from mmdet.models.dense_heads import RTMDetInsHead

    return isinstance(head, RTMDetInsHead)


class ExportedInstances(ExportedDetector):
    """RTMDet-Ins; its masks are logits of the complete image, one for every ``mask_stride`` pixels.

    Args:
        model (nn.Module): A ``SingleStageDetector`` with an ``RTMDetInsHead``.

    Raises:
        UsageError: The head predicts in a way of its own.
    """

    def __init__(self, model: Any) -> None:
        from mmdet.models.dense_heads import RTMDetInsHead

        head, names = model.bbox_head, ('predict_by_feat', '_predict_by_feat_single', '_mask_predict_by_feat_single')
        same = all(getattr(type(head), name) is getattr(RTMDetInsHead, name) for name in names)
        require(same, head, 'it predicts boxes in a way of its own')
        super().__init__(model, count_of(head, head.test_cfg, 'mask_thr_binary'), ('masks',))
        self.checked = [
            f'{kind} map {i}' for kind in ('class', 'box', 'kernel') for i in range(len(head.prior_generator.strides))
        ]
        self.checked.append('mask features')
        threshold = head.test_cfg.mask_thr_binary
        self.stride = int(head.prior_generator.strides[0][0])
        self.options = {'mask_threshold': math.log(threshold / (1 - threshold)), 'mask_stride': self.stride}

    def results(self, images: Tensor) -> tuple[Tensor, ...]:
        """Args: images (Tensor[B, 3, H, W]). Returns: Boxes, scores, labels, masks; maps."""
        head = self.model.bbox_head
        maps = self.maps(images)
        scores, boxes, kernels, features = self._by_kind(maps)
        found = candidates(head, (scores, boxes), images.shape[2:], head.test_cfg)
        *kept, index = suppress(*found[:3], head.test_cfg.nms, self.count)
        kernels = torch.ops.mmevm_deploy.take(kernels, found.chosen, head.num_gen_params)
        priors = chosen_priors(head, scores, found.chosen, with_stride=True)
        kernels, priors = (t.gather(1, index.unsqueeze(-1).expand(-1, -1, t.shape[2])) for t in (kernels, priors))
        return *kept, self._masks(features, kernels, priors), *maps

    def _masks(self, features: Tensor, kernels: Tensor, priors: Tensor) -> Tensor:
        """Convolve each image with the kernels of its objects: Tensor[B, K, h, w]."""
        head, (h, w), K = self.model.bbox_head, features.shape[2:], kernels.shape[1]
        cells = head.prior_generator.single_level_grid_priors((h, w), level_idx=0, device=features.device)
        offset = (priors[..., :2].unsqueeze(2) - cells) / (priors[..., 2:3].unsqueeze(2) * 8)  # [B, K, h * w, 2]
        weights = kernels.split([*head.weight_nums, *head.bias_nums], dim=2)
        n = len(head.weight_nums)
        y: Any = None
        for i, (weight, bias) in enumerate(zip(weights[:n], weights[n:], strict=True)):
            weight = weight.unflatten(2, (bias.shape[2], -1))  # [B, K, out, in]
            if i == 0:  # apart, so that the features are not repeated for each object
                y = weight[..., :2] @ offset.mT + weight[..., 2:] @ features.flatten(2).unsqueeze(1)
            else:
                y = weight @ F.relu(y)
            y = y + bias.unsqueeze(-1)
        return y.reshape(-1, K, h, w)

    def _by_kind(self, maps: Sequence[Tensor]) -> tuple[Any, ...]:
        """Return the maps as mmdet's head does: scores, boxes and kernels of all levels, and features."""
        n = len(self.model.bbox_head.prior_generator.strides)
        return tuple(maps[:n]), tuple(maps[n : 2 * n]), tuple(maps[2 * n : 3 * n]), maps[3 * n]

    def maps(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return the maps of the head."""
        scores, boxes, kernels, features = self.model.bbox_head(self.features(images))
        return *scores, *boxes, *kernels, features

    def expected(self, images: Tensor) -> tuple[Tensor, ...]:
        """The predictions of mmdet, the masks of which are bool [B, K, H, W], in the padded image."""
        images = self.preprocessing(images)
        found = self.predictions(images)
        masks = torch.stack([fill_up(instances.masks, self.count, False) for instances in found])
        return *self.fill(found), masks, *self.maps(images)

    def compare_masks(self, got: Tensor, expected: Tensor, pairs: Sequence[tuple[int, int, int]]) -> Difference:
        """Compare the masks of equal objects in pixels."""
        got = F.interpolate(got, scale_factor=self.stride, mode='bilinear') > self.options['mask_threshold']
        shares = [(got[i, j] != expected[i, k]).float().mean().item() for i, j, k in pairs]
        return Difference('masks (share of pixels)', max(shares, default=0.0), 0.01)
