"""The numbers of classes that a config states for its model, and whether a classification config agrees on one."""

import inspect
import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from mmengine.registry import MODELS

from mmevm.engine.checks.annotations import list_class_folders
from mmevm.engine.checks.class_lists import ClassList, stated_classes
from mmevm.engine.checks.datasets import evaluators, resolve
from mmevm.engine.options import present_value
from mmevm.registry import type_name

# Parts of a model whose number of classes, if they have one, is not the dataset's.
_OTHER_CLASSES = {'data_preprocessor', 'backbone', 'neck', 'rpn_head', 'semantic_head', 'task_heads'}
_OTHER_CLASSES |= {'init_cfg', 'train_cfg', 'test_cfg'}
_HEAD, _BACKBONE = 'model.head.num_classes', 'model.backbone.num_classes'
# Keys of the parts that have the dataset's number of classes by default.
_HEAD_OR_LOSS = re.compile(r'(head|\.loss\w*)[.\d]*$')
# Heads that learn boundaries.
_OTHER_HEADS = {'STDCHead'}


def class_counts(cfg: Any) -> dict[str, int]:
    """Return the numbers of classes that a config states for its model.

    Args:
        cfg (Config): A complete config of MMDetection, MMSegmentation or MMPretrain.

    Returns:
        dict[str, int]: By dotted key, e.g. ``model.roi_head.bbox_head.0.num_classes``: those of all heads, losses and
        data preprocessors that count the dataset's classes, but not of region proposals and the like. Heads and
        losses that state no number have their class's default.
    """
    model = cfg.get('model') or {}
    scope = cfg.get('default_scope')
    counts = dict(_counts(model, 'model', scope))
    # Some of MMPretrain's networks, VGG for one, end with their own classifier, and have a head that only has the loss.
    of_backbone = (model.get('backbone') or {}).get('num_classes') if scope == 'mmpretrain' else None
    if isinstance(of_backbone, int) and of_backbone > 0 and _HEAD not in counts:
        counts[_BACKBONE] = of_backbone
    key = 'model.data_preprocessor' if 'data_preprocessor' in model else 'data_preprocessor'
    preprocessor = present_value(cfg, key) or {}
    # MMPretrain's uses its number only where labels become vectors, as MixUp needs them.
    if preprocessor.get('to_onehot') or preprocessor.get('batch_augments', model.get('train_cfg')):
        counts |= _counts(preprocessor, key, None)
    return counts


def _counts(part: Any, key: str, scope: str | None) -> Iterator[tuple[str, int]]:
    if isinstance(part, list | tuple):
        for index, item in enumerate(part):
            yield from _counts(item, f'{key}.{index}', scope)
    if not isinstance(part, Mapping) or part.get('class_agnostic') or type_name(part) in _OTHER_HEADS:
        return
    count = part.get('num_classes')
    if count is None and 'num_things_classes' in part:
        yield f'{key}.num_things_classes', part['num_things_classes'] + part.get('num_stuff_classes', 0)
    elif count is None and _HEAD_OR_LOSS.search(key):
        count = _default_count(part, scope)
    if isinstance(count, int) and not isinstance(count, bool):
        yield f'{key}.num_classes', count
    for name, value in part.items():
        if name not in _OTHER_CLASSES:
            yield from _counts(value, f'{key}.{name}', scope)


def _default_count(part: Mapping, scope: str | None) -> int | None:
    """Return the default number of classes of the class of a head or loss."""
    kind = resolve(MODELS, part.get('type'), scope)
    for base in inspect.getmro(kind) if inspect.isclass(kind) else ():
        init = vars(base).get('__init__')
        if init and 'num_classes' in (parameters := inspect.signature(init).parameters):
            return parameters['num_classes'].default
    return None


class _Stated(NamedTuple):
    """A number of classes, where the config states it, and whether all others must be equal."""

    key: str
    number: int
    is_binding: bool = True


def _stated_by_model(cfg: Any, counts: Mapping[str, int], is_training: bool) -> Iterator[_Stated]:
    for key, count in counts.items():
        if is_training or key in (_HEAD, _BACKBONE):
            yield _Stated(key, count)
    loss = cfg.model['head'].get('loss')
    weights = loss.get('class_weight') if isinstance(loss, Mapping) else None
    if is_training and isinstance(weights, list | tuple):
        yield _Stated('model.head.loss.class_weight', len(weights))


def _stated_by_data(entry: ClassList) -> Iterator[_Stated]:
    leaf, dataset = entry.leaf, entry.dataset
    if entry.names is not None:
        key = stated_classes(leaf)[0] if entry.stated else f'{leaf.key} ({leaf.name})'
        # Datasets that read their labels from files, as ImageNet does, may have any.
        reads_labels = any(base.__name__ == 'CustomDataset' for base in type(dataset).__mro__)
        yield _Stated(key, len(entry.names), entry.stated or not reads_labels)
    if leaf.name == 'CustomDataset' and dataset.with_label and not dataset.ann_file:
        folder = dataset.img_prefix
        if os.path.isdir(folder):
            # MMPretrain takes hidden folders for classes, too; their comparison names them.
            count = sum(not name.startswith('.') for name in list_class_folders(folder))
            yield _Stated(f'{leaf.key} ({leaf.name}), folders in {folder}', count)


def _excessive_topk(cfg: Any, metrics: Iterable[tuple[str, Mapping]], is_training: bool, count: int) -> dict[str, list]:
    """Return the values of ``topk`` that exceed the number of classes, by key."""
    head = cfg.model['head']
    users = [('model.head', head)] if is_training and head.get('cal_acc') else []
    values = {f'{key}.topk': settings.get('topk') or 1 for key, settings in (*users, *metrics)}
    lists = {key: list(topk) if isinstance(topk, list | tuple) else [topk] for key, topk in values.items()}
    return {key: topk for key, topk in lists.items() if max(topk) > count}


def compare_counts(cfg: Any, phases: Collection[str], lists: Iterable[ClassList]) -> str | None:
    """Compare the numbers of classes that the parts of a classification config state.

    Args:
        cfg (Config): A complete config; others than MMPretrain's, and models without one classification head, pass.
        phases (Collection[str]): The phases that will run.
        lists (Iterable[ClassList]): The classes of their datasets.

    Returns:
        str | None: What is wrong, with all keys, if they differ or ``topk`` exceeds the number of classes.
    """
    head = (cfg.get('model') or {}).get('head')
    if cfg.get('default_scope') != 'mmpretrain' or not isinstance(head, dict):
        return None
    counts = class_counts(cfg)
    own = counts.get(_HEAD, counts.get(_BACKBONE))
    if not own:
        return None
    data = [stated for entry in lists for stated in _stated_by_data(entry)]
    metrics = [(key, settings) for _, key, settings in evaluators(cfg, phases)]
    stated = [*_stated_by_model(cfg, counts, 'train' in phases), *data]
    stated += [_Stated(f'{key}.num_classes', part['num_classes']) for key, part in metrics if part.get('num_classes')]
    # The data is given; the config can change.
    count = next((item.number for item in data if item.is_binding), own)
    topk = _excessive_topk(cfg, metrics, 'train' in phases, count)
    if all(item.number == count for item in stated if item.is_binding) and not topk:
        return None
    lines = [f'  {item.key}: {item.number}' for item in stated] + [f'  {key}: {values}' for key, values in topk.items()]
    changes = [f'{item.key}={count}' for item in stated if item.key.endswith('.num_classes') and item.number != count]
    changes += [f"'{key}={[value for value in values if value <= count] or [1]}'" for key, values in topk.items()]
    advice = f'\nFor {count} classes: --cfg-options {" ".join(changes)}' if changes else ''
    return 'The config does not agree on the number of classes:\n' + '\n'.join(lines) + advice
