"""The classes of datasets and heads, compared before a model is built.

:func:`class_names` and :func:`class_counts` tell what a config says; :func:`check_classes` compares both with each
other and with what the annotations hold.
"""

import inspect
import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from mmengine.logging import print_log

from mmevm.engine.checks.class_lists import examine
from mmevm.engine.checks.class_names import check_coco
from mmevm.engine.checks.class_report import ClassList, Report, listed
from mmevm.engine.checks.datasets import evaluators, is_remote, leaves, resolve
from mmevm.engine.options import present_value
from mmevm.errors import UsageError
from mmevm.registry import type_name

# Parts of a model whose number of classes, if they have one, is not the dataset's.
_OTHER_CLASSES = {
    'data_preprocessor',
    'backbone',
    'neck',
    'rpn_head',
    'semantic_head',
    'task_heads',
    'init_cfg',
    'train_cfg',
    'test_cfg',
}
# Heads that learn boundaries.
_OTHER_HEADS = {'STDCHead'}


def class_counts(cfg: Any) -> dict[str, int]:
    """Numbers of classes that a config gives to its model.

    Args:
        cfg (Config): A whole config of MMDetection, MMSegmentation or MMPretrain.

    Returns:
        dict[str, int]: By dotted key, e.g. ``model.roi_head.bbox_head.0.num_classes``: of every head, loss and data
        preprocessor that counts the dataset's classes, region proposals and the like left out. Heads that name no
        number are there with their class's default.
    """
    model = cfg.get('model') or {}
    counts = dict(_counts(model, 'model', cfg.get('default_scope')))
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
    elif count is None and key.rstrip('.0123456789').endswith('head'):
        count = _default_count(part, scope)
    if isinstance(count, int) and not isinstance(count, bool):
        yield f'{key}.num_classes', count
    for name, value in part.items():
        if name not in _OTHER_CLASSES:
            yield from _counts(value, f'{key}.{name}', scope)


def _default_count(head: Mapping, scope: str | None) -> int | None:
    """The number of classes of a head that states none: its class's default."""
    from mmengine.registry import MODELS

    kind = resolve(MODELS, head.get('type'), scope)
    for base in inspect.getmro(kind) if inspect.isclass(kind) else ():
        if '__init__' in vars(base) and 'num_classes' in (known := inspect.signature(base.__init__).parameters):
            return known['num_classes'].default
    return None


def class_names(cfg: Any, phases: Iterable[str] = ('train', 'val', 'test')) -> dict[str, tuple[str, ...]]:
    """Names of the classes of a config's datasets, as their classes and ``metainfo`` settings have them.

    Args:
        cfg (Config): A whole config.
        phases (Iterable[str]): Whose datasets.

    Returns:
        dict[str, tuple[str, ...]]: By the dataset's dotted key, without those that have no names.
    """
    lists = (examine(leaf, cfg.get('default_scope'), Report(), read=False) for leaf in leaves(cfg, phases))
    return {entry.leaf.key: entry.names for entry in lists if entry and entry.names}


def check_classes(cfg: Any, phases: Iterable[str]) -> None:
    """Compare the classes of datasets, annotations, heads and metrics, and say what matches and what does not.

    Args:
        cfg (Config): A whole config whose data is there.
        phases (Iterable[str]): The phases that will run.

    Raises:
        UsageError: Classes would be dropped, mixed up or beyond a head's, or a dataset cannot be built.
    """
    phases = list(phases)
    report = Report()
    lists = [entry for leaf in leaves(cfg, phases) if (entry := examine(leaf, cfg.get('default_scope'), report))]
    _compare_phases(lists, report)
    _check_metrics(cfg, lists, report)
    counts = class_counts(cfg)
    for entry in lists:
        _compare_count(entry, counts, report)
    _check_out_channels(cfg, counts, report)
    _check_topk(cfg, phases, counts, report)
    # One process of a distributed run speaks for all.
    for note in dict.fromkeys(report.notes) if os.environ.get('RANK', '0') == '0' else ():
        print_log(note, logger='current', level=logging.WARNING)
    if report.problems:
        lines = list(dict.fromkeys(report.problems))
        if report.wanted or report.count:
            lines += _config_lines(cfg, report, counts)
        raise UsageError('\n'.join(lines))


def _compare_phases(lists: Sequence[ClassList], report: Report) -> None:
    """Say where datasets number their classes differently."""
    for entry in lists[1:]:
        reference = lists[0]
        is_same_kind = entry.leaf.name == reference.leaf.name and entry.is_read
        if not is_same_kind and not (entry.stated and reference.stated):
            # Datasets for tracking have more names than the detector that is trained for it.
            continue
        # Numbers of folders compare with those of folders, and the names that a config gives to classes with names.
        first, second = (
            (reference.numbered, entry.numbered)
            if reference.numbered and entry.numbered
            else (reference.names, entry.names)
        )
        if not first or not second or first == second:
            continue
        one, other = reference.leaf.key, entry.leaf.key
        report.problems.append(f'{one} and {other} number their classes differently:')
        if set(first) == set(second):
            report.problems += [f'  {one}: {listed(first)}', f'  {other}: {listed(second)}']
            continue
        for key, names, others in ((one, first, second), (other, second, first)):
            report.problems.append(f'  {key} alone: {listed(name for name in names if name not in others) or "none"}')


def _compare_count(entry: ClassList, counts: Mapping[str, int], report: Report) -> None:
    """Say where a dataset has more classes than a head, or fewer."""
    if entry.leaf.phase != 'train' and not entry.is_read:
        return
    for key, count in counts.items():
        # In panoptic models, only what counts both kinds counts all names.
        objects = entry.things if key.endswith('.num_classes') else None
        names = objects if objects is not None else len(entry.by_id or ())
        if entry.highest is not None and entry.highest >= count:
            problem = f'{entry.source} has the class id {entry.highest}, and {key} = {count} allows 0 to {count - 1}.'
            if entry.sampled and entry.highest == count:
                problem += ' If its zeros stand for pixels without a class: reduce_zero_label=True.'
        elif names > count and (entry.highest is None or entry.sampled):
            problem = f'{names} classes, {listed(entry.by_id)}, are more than {key} = {count} allows.'
        else:
            if 0 < names < count:
                report.notes.append(
                    f'{key} = {count}, and {entry.leaf.key} has {names} classes: the model has outputs '
                    'that nothing trains.'
                )
            continue
        report.problems.append(f'{entry.leaf.key}: {problem}')
        report.count = max(report.count or 0, names, (entry.highest or 0) + 1)


def _check_metrics(cfg: Any, lists: Sequence[ClassList], report: Report) -> None:
    """Compare the files of COCO's metrics, where they are not the datasets' own."""
    from mmengine.registry import METRICS

    for phase, key, metric in evaluators(cfg, ('val', 'test')):
        path = metric.get('ann_file')
        entry = next((entry for entry in lists if entry.leaf.phase == phase and entry.names), None)
        if not entry or not isinstance(path, str) or is_remote(metric) or os.path.realpath(path) == entry.source:
            continue
        kind = resolve(METRICS, metric.get('type'), cfg.get('default_scope'))
        bases = [base.__name__ for base in getattr(kind, '__mro__', ())]
        if 'CocoMetric' in bases and 'LVISMetric' not in bases:
            check_coco(entry._replace(leaf=entry.leaf._replace(key=key)), path, entry.stated, report)


def _check_topk(cfg: Any, phases: Sequence[str], counts: Mapping[str, int], report: Report) -> None:
    """Say where the accuracy among more classes is asked for than there are."""
    count = counts.get('model.head.num_classes')
    head = cfg.model.get('head') if cfg.get('model') else None
    asked = [(key, metric) for _, key, metric in evaluators(cfg, phases) if type_name(metric) == 'Accuracy']
    asked += [('model.head', head)] if isinstance(head, Mapping) and head.get('cal_acc') else []
    for key, settings in asked:
        topk = settings.get('topk') or (1,)
        largest = topk if isinstance(topk, int) else max(topk)
        if count is not None and largest > count:
            report.problems.append(
                f'{key}.topk = {topk} asks for the {largest} likeliest of {count} classes '
                f'(model.head.num_classes); write {key}.topk = (1,).'
            )


def _check_out_channels(cfg: Any, counts: Mapping[str, int], report: Report) -> None:
    """Say where a segmentation head's channels are not its classes."""
    from mmengine.registry import MODELS

    for key, count in counts.items():
        name = key.rpartition('.')[0]
        head = present_value(cfg, name)
        channels = head.get('out_channels') if isinstance(head, Mapping) else None
        if channels in (None, count) or (channels, count) == (1, 2):
            continue
        kind = resolve(MODELS, head.get('type'), cfg.get('default_scope'))
        # In others, such as Mask2Former's, they are those of the pixels' features.
        if any(base.__name__ == 'BaseDecodeHead' for base in getattr(kind, '__mro__', ())):
            report.problems.append(f'{name}.out_channels = {channels} must be {key} = {count}, or 1 of two classes.')


def _config_lines(cfg: Any, report: Report, counts: Mapping[str, int]) -> list[str]:
    """The lines of a config that would make datasets and heads agree."""
    names, count = report.wanted, len(report.wanted) if report.wanted else report.count
    settings = {key: str(count) for key, value in counts.items() if value != count}
    lines = ['What would fit, as lines of the config:']
    if names:
        lines.append(f'  classes = {names!r}')
        settings |= {f'{leaf.key}.metainfo.classes': 'classes' for leaf in leaves(cfg, ('train', 'val', 'test'))}
    tree: dict = {}
    for key, value in settings.items():
        *parents, last = key.split('.')
        if any(part.isdigit() for part in parents):
            # A list cannot be changed in a part from a config that inherits it.
            lines.append(f'  # {key} = {value}')
            continue
        node = tree
        for part in parents:
            node = node.setdefault(part, {})
        node[last] = value
    return lines + [f'  {key} = {_as_code(value)}' for key, value in tree.items()]


def _as_code(value: Any) -> str:
    return value if isinstance(value, str) else f'dict({", ".join(f"{k}={_as_code(v)}" for k, v in value.items())})'
