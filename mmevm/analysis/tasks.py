"""The cost of a config's model at the picture size at which the paper's tables state it."""

from typing import Any

import torch
from torch import Tensor, nn

from mmevm.analysis.complexity import Complexity, count

SIZES = {'mmdet': (800, 1280), 'mmseg': (512, 2048), 'mmpretrain': (224, 224)}
"""Height and width, in pixels, by a config's ``default_scope``."""

_PROPOSALS = 1000
_MASKS = 100


def build_model(cfg: Any, device: str = 'cpu') -> nn.Module:
    """Builds a config's model; ``init_cfg`` is left alone, so nothing is downloaded.

    Args:
        cfg (Config): A config.
        device (str): Where; on 'meta' the model has shapes and no values, and takes no time.

    Returns:
        nn.Module: The model.
    """
    from mmengine.registry import MODELS, init_default_scope

    init_default_scope(cfg.get('default_scope', 'mmengine'))
    with torch.device(device):
        return MODELS.build(cfg.model)


def measure(cfg: Any, size: tuple[int, int] | None = None) -> Complexity:
    """Counts one picture's forward pass through a config's model, post-processing left out.

    A two-stage detector's heads are counted for 1000 proposals and 100 masks, as MMDetection's own tool does once the
    proposal stage finds that many, whatever the random weights would propose. An auxiliary head of a segmentor, which
    only training uses, counts among the parameters alone.

    Args:
        cfg (Config): A config of mmdet, mmseg or mmpretrain.
        size (tuple[int, int], optional): Height and width; by default the one in :data:`SIZES`.

    Returns:
        Complexity: For one picture.

    Raises:
        ValueError: If the config's ``default_scope`` is another one.
        RuntimeError: As :func:`mmevm.analysis.complexity.count`.
    """
    scope = cfg.get('default_scope')
    if scope not in SIZES:
        raise ValueError(f'`default_scope` must be one of {", ".join(SIZES)}, got {scope!r}')
    model = build_model(cfg, 'meta')
    run = {'mmdet': _detect, 'mmseg': _segment, 'mmpretrain': _classify}[scope]
    return count(model, (1, 3, *(size or SIZES[scope])), run=run)


def _classify(model: nn.Module, images: Tensor) -> None:
    model.head(model.extract_feat(images))


def _segment(model: nn.Module, images: Tensor) -> None:
    model.decode_head(model.extract_feat(images))


def _detect(model: nn.Module, images: Tensor) -> None:
    maps = model.extract_feat(images)
    if not hasattr(model, 'roi_head'):
        model.bbox_head(maps)
        return
    model.rpn_head(maps)
    heads = model.roi_head
    for head, extractor, rois in (
        (heads.bbox_head, heads.bbox_roi_extractor, _PROPOSALS),
        (heads.mask_head, heads.mask_roi_extractor, _MASKS),
    ):
        # RoIAlign itself has no rule: it interpolates, and multiplies nothing that is learned.
        head(torch.empty(rois, extractor.out_channels, *extractor.roi_layers[0].output_size))
