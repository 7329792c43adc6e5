"""``--tta`` of ``tools/test.py``: which models can be tested with augmentation, and how."""

import copy
from collections.abc import Iterator
from typing import Any

from mmevm.engine.checks.datasets import leaf_datasets
from mmevm.errors import UsageError
from mmevm.registry import type_name

_MASK_PARTS = ('mask_head', 'panoptic_head', 'panoptic_fusion_head')
_MASKS = (
    "--tta: MMDetection's test-time augmentation merges boxes alone, and this model predicts masks ({}). Leave --tta "
    'out{}.'
)
_BOXES_ALONE = ', or test the boxes alone: --cfg-options model.roi_head.mask_head=None test_evaluator.metric=bbox'
_NO_SCORES = (
    '--tta: MMPretrain averages the scores of one classification head, and {} gives none of that kind. Leave --tta out.'
)
# What the transform that ends a pipeline must keep, for the predictions to be flipped back.
_FLIPPED = ('flip', 'flip_direction')
_DET_META = ('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')


def _parts(settings: Any, prefix: str) -> Iterator[tuple[str, dict]]:
    """Yield every dict inside of ``settings`` with its key in the config."""
    if isinstance(settings, dict):
        yield prefix, settings
        children = settings.items()
    elif isinstance(settings, list | tuple):
        children = enumerate(settings)
    else:
        return
    for key, value in children:
        yield from _parts(value, f'{prefix}.{key}')


def _require_boxes(cfg: Any) -> None:
    """Refuse detectors with more than boxes, before they are built."""
    for key, part in _parts(cfg.model, 'model'):
        found = [f'{key}.{name}' for name in _MASK_PARTS if part.get(name)]
        if (type_name(part) or '').startswith('RTMDetIns'):
            found.append(key)
        if found:
            raise UsageError(_MASKS.format(found[0], _BOXES_ALONE if found[0] == 'model.roi_head.mask_head' else ''))


def _require_scores(cfg: Any) -> None:
    """Refuse what is no classifier with one head."""
    kind, head = type_name(cfg.model, ''), cfg.model.get('head')
    if type_name(head) == 'MultiTaskHead':
        raise UsageError(_NO_SCORES.format('MultiTaskHead'))
    if not kind.endswith('Classifier') and not (head or {}).get('num_classes'):
        raise UsageError(_NO_SCORES.format(kind))


def _require_segmentation(cfg: Any) -> None:
    kind = type_name(cfg.model)
    if kind == 'DepthEstimator':
        raise UsageError(
            f"--tta: MMSegmentation's SegTTAModel merges segmentations, and {kind} predicts depth. Leave --tta out."
        )
    if not cfg.get('tta_model') or not cfg.get('tta_pipeline'):
        raise UsageError(
            "--tta needs tta_model and tta_pipeline in a segmentation config, as MMSegmentation's own "
            'base configs have them.'
        )


# By scope: the library's model for it, what that needs of a config, and the transform that ends a test pipeline.
_LIBRARIES = {
    'mmdet': (
        dict(type='DetTTAModel', tta_cfg=dict(nms=dict(type='nms', iou_threshold=0.5), max_per_img=100)),
        _require_boxes,
        'PackDetInputs',
    ),
    'mmseg': (dict(type='SegTTAModel'), _require_segmentation, 'PackSegInputs'),
    'mmpretrain': (dict(type='AverageClsScoreTTA'), _require_scores, 'PackInputs'),
}


def _flipped(pipeline: list, last: str) -> list:
    """The pipeline of a config without ``tta_pipeline``: the image as it is, and flipped."""
    kinds = [type_name(transform, '') for transform in pipeline]
    if 'TestTimeAug' in kinds or kinds[-1:] != [last]:
        raise UsageError(
            f'--tta needs a test pipeline that ends with {last}, got {" → ".join(kinds) or "none"}. Give '
            'tta_pipeline in the config.'
        )
    pack = copy.deepcopy(pipeline[-1])
    if last == 'PackDetInputs':
        pack['meta_keys'] = tuple(dict.fromkeys((*pack.get('meta_keys', _DET_META), *_FLIPPED)))
    # Unflipped first: the annotations of the first are what the merged predictions are compared with.
    flips = [dict(type='RandomFlip', prob=0.0), dict(type='RandomFlip', prob=1.0)]
    return [*pipeline[:-1], dict(type='TestTimeAug', transforms=[flips, [pack]])]


def set_tta(cfg: Any) -> None:
    """Wrap the model and replace the test pipelines of ``cfg``.

    Args:
        cfg (Config): Changed in place; its own ``tta_model`` and ``tta_pipeline`` come before the defaults, which are
            the image as it is and flipped.

    Raises:
        UsageError: The predictions of this model cannot be merged.
    """
    scope = cfg.get('default_scope')
    if scope not in _LIBRARIES:
        raise UsageError(f'--tta serves configs of {", ".join(_LIBRARIES)}, got default_scope = {scope!r}.')
    default, require, last = _LIBRARIES[scope]
    model = cfg.get('tta_model') or default
    if type_name(model) == type_name(default):  # a user's own may merge anything
        require(cfg)
    for dataset in leaf_datasets(cfg.test_dataloader.dataset):
        dataset['pipeline'] = cfg.get('tta_pipeline') or _flipped(dataset.get('pipeline') or [], last)
    cfg.model = dict(model, module=cfg.model)
