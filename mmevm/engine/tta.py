"""``--tta`` of ``tools/test.py``: which models can be tested with augmentation, and how."""

import copy
from typing import Any

from mmevm.engine.checks.datasets import leaves
from mmevm.engine.tasks import TASKS, task_of
from mmevm.errors import UsageError
from mmevm.registry import type_name

# What the transform that ends a pipeline must keep so that the predictions can be flipped back.
_FLIPPED = ('flip', 'flip_direction')
_DET_META = ('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')


def _flipped(pipeline: list, last: str) -> list:
    """Return a pipeline that yields the image as it is and flipped."""
    kinds = [type_name(transform) or '' for transform in pipeline]
    if 'TestTimeAug' in kinds or kinds[-1:] != [last]:
        raise UsageError(
            f'--tta needs a test pipeline that ends with {last}, got {" → ".join(kinds) or "none"}. Give '
            'tta_pipeline in the config.'
        )
    pack = copy.deepcopy(pipeline[-1])
    if last == 'PackDetInputs':
        pack['meta_keys'] = tuple(dict.fromkeys((*pack.get('meta_keys', _DET_META), *_FLIPPED)))
    # Unflipped first: the merged predictions are compared with the annotations of the first view.
    flips = [dict(type='RandomFlip', prob=0.0), dict(type='RandomFlip', prob=1.0)]
    return [*pipeline[:-1], dict(type='TestTimeAug', transforms=[flips, [pack]])]


def set_tta(cfg: Any) -> None:
    """Wrap the model and replace the test pipelines of ``cfg``.

    Args:
        cfg (Config): Changed in place. Its own ``tta_model`` and ``tta_pipeline`` take precedence over the defaults,
            which are the image as it is and flipped.

    Raises:
        UsageError: The predictions of this model cannot be merged.
    """
    task = task_of(cfg)
    if not task.tta_model:
        raise UsageError(
            f'--tta supports configs of {", ".join(TASKS)}, got default_scope = {cfg.get("default_scope")!r}.'
        )
    model = dict(cfg.get('tta_model') or task.tta_model)
    if type_name(model) == type_name(task.tta_model):  # a user's own may merge anything
        task.check_tta(cfg)
    for leaf in leaves(cfg, ('test',)):
        leaf.settings['pipeline'] = cfg.get('tta_pipeline') or _flipped(
            leaf.settings.get('pipeline') or [], task.packing
        )
    cfg.model = dict(model, module=cfg.model)
