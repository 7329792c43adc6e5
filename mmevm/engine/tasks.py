"""The tasks that the tools serve, one per OpenMMLab library, and what sets the libraries apart."""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from mmengine.registry import MODELS, init_default_scope
from torch import nn

from mmevm.engine.checks.datasets import is_kind
from mmevm.engine.options import parts
from mmevm.errors import UsageError
from mmevm.registry import scope_of, type_name

_MASK_PARTS = ('mask_head', 'panoptic_head', 'panoptic_fusion_head')
_MASKS = (
    "--tta: MMDetection's test-time augmentation merges boxes only, and this model predicts masks ({}). Leave out "
    '--tta{}.'
)
_BOXES_ONLY = ', or test the boxes only: --cfg-options model.roi_head.mask_head=None test_evaluator.metric=bbox'
_NO_SCORES = (
    '--tta: MMPretrain averages the scores of one classification head, and {} has no such head. Leave out --tta.'
)


def mask_part(cfg: Any) -> str | None:
    """Return the key of the part of a detector that predicts masks, if there is one."""
    for key, part in parts(cfg.model, 'model'):
        found = [f'{key}.{name}' for name in _MASK_PARTS if part.get(name)]
        if (type_name(part) or '').startswith('RTMDetIns'):
            found.append(key)
        if found:
            return found[0]
    return None


def _require_boxes(cfg: Any) -> None:
    if found := mask_part(cfg):
        raise UsageError(_MASKS.format(found, _BOXES_ONLY if found == 'model.roi_head.mask_head' else ''))


def _require_segmentation(cfg: Any) -> None:
    kind = type_name(cfg.model)
    if kind == 'DepthEstimator':
        raise UsageError(
            f"--tta: MMSegmentation's SegTTAModel merges segmentations, and {kind} predicts depth. Leave out --tta."
        )
    if not cfg.get('tta_model') or not cfg.get('tta_pipeline'):
        raise UsageError(
            "--tta needs tta_model and tta_pipeline in a segmentation config, as in MMSegmentation's base configs."
        )


def _require_scores(cfg: Any) -> None:
    kind, head = type_name(cfg.model) or '', cfg.model.get('head')
    if type_name(head) == 'MultiTaskHead':
        raise UsageError(_NO_SCORES.format('MultiTaskHead'))
    if not kind.endswith('Classifier') and not (head or {}).get('num_classes'):
        raise UsageError(_NO_SCORES.format(kind))


@dataclass(frozen=True)
class Task:
    """What the tools need to know of a library.

    Attributes:
        library (str): Its scope, the ``default_scope`` of its configs.
        packages (tuple[str, str]): Its distributions: the maintained fork's and OpenMMLab's.
        name (str): The task, as metafiles call it.
        data (str): The kind of dataset that it is trained on (see :mod:`mmevm.data`).
        tta_model (Mapping): The model that merges augmented predictions, empty where the tools know of none.
        check_tta (Callable): Raises :class:`UsageError` for configs whose predictions that model cannot merge.
        packing (str): The transform that ends a test pipeline.
        draws_tta (bool): Whether its visualization hook accepts merged predictions.
        draw_switch (str): The hook's option that turns drawing on.
        draw_folder (str): The config's key for the folder of the drawings.
        dump_metric (str): The class that writes predictions to a file.
        loader (Mapping): Options of data loaders that its own tools add, and its configs therefore lack.
    """

    library: str
    packages: tuple[str, str]
    name: str = ''
    data: str = ''
    tta_model: Mapping[str, Any] = field(default_factory=dict)
    check_tta: Callable[[Any], None] = lambda cfg: None
    packing: str = ''
    draws_tta: bool = True
    draw_switch: str = 'draw'
    draw_folder: str = 'default_hooks.visualization.test_out_dir'
    dump_metric: str = 'mmengine.evaluator.DumpResults'
    loader: Mapping[str, Any] = field(default_factory=dict)


TASKS = {
    task.library: task
    for task in (
        Task(
            'mmdet',
            ('onedl-mmdetection', 'mmdet'),
            'Object Detection',
            'detection',
            dict(type='DetTTAModel', tta_cfg=dict(nms=dict(type='nms', iou_threshold=0.5), max_per_img=100)),
            _require_boxes,
            'PackDetInputs',
            dump_metric='mmdet.evaluation.DumpDetResults',
        ),
        Task(
            'mmseg',
            ('onedl-mmsegmentation', 'mmsegmentation'),
            'Semantic Segmentation',
            'segmentation',
            dict(type='SegTTAModel'),
            _require_segmentation,
            'PackSegInputs',
            draw_folder='visualizer.save_dir',
        ),
        Task(
            'mmpretrain',
            ('onedl-mmpretrain', 'mmpretrain'),
            'Image Classification',
            'classification',
            dict(type='AverageClsScoreTTA'),
            _require_scores,
            'PackInputs',
            draws_tta=False,
            draw_switch='enable',
            draw_folder='default_hooks.visualization.out_dir',
            loader=dict(collate_fn=dict(type='default_collate'), persistent_workers=True),
        ),
    )
}


def task_of(cfg: Any) -> Task:
    """Return the task of a config; that of another library has MMEngine's defaults and no name."""
    scope = str(cfg.get('default_scope'))
    return TASKS.get(scope) or Task(scope, (f'onedl-{scope}', scope))


def build_model(cfg: Any, device: str = 'cpu') -> nn.Module:
    """Build a config's model; ``init_cfg`` is not applied, so nothing is downloaded.

    As in MMEngine's Runner, a ``data_preprocessor`` beside the model is the model's if it has none.

    On the device ``'meta'``, the model has shapes but no values, and is built in no time.
    """
    init_default_scope(scope_of(cfg) or 'mmengine')
    model = copy.deepcopy(cfg.model)  # some models write into their configs
    preprocessor = cfg.get('data_preprocessor')
    if preprocessor and is_kind(MODELS, model, scope_of(cfg), 'BaseModel'):  # and not a backbone alone
        model.setdefault('data_preprocessor', copy.deepcopy(preprocessor))
    with torch.device(device):
        return MODELS.build(model)
