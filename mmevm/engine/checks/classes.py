"""Comparison of the classes of datasets, annotations, heads and metrics before a model is built."""

import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.registry import METRICS, MODELS

from mmevm.engine.checks.class_counts import class_counts, compare_counts
from mmevm.engine.checks.class_lists import ClassList, Report, class_lists, quoted
from mmevm.engine.checks.class_readers import check_coco, compare_with_annotations
from mmevm.engine.checks.datasets import evaluators, is_kind, is_remote, leaves
from mmevm.engine.options import present_value
from mmevm.errors import UsageError


def check_classes(cfg: Any, phases: Iterable[str]) -> None:
    """Compare the classes of datasets, annotations, heads and metrics.

    Args:
        cfg (Config): A complete config whose data exists.
        phases (Iterable[str]): The phases that will run.

    Raises:
        UsageError: Classes would be dropped, mixed up or beyond a head's, or a dataset cannot be built.
    """
    report, phases = Report(), tuple(phases)
    lists = class_lists(cfg, phases, report)
    disagreement = compare_counts(cfg, phases, lists)
    lists = [entry for found in lists if (entry := compare_with_annotations(found, report))]
    _compare_phases(lists, report)
    _check_metrics(cfg, lists, report)
    counts = class_counts(cfg)
    for entry in lists:
        _compare_count(entry, counts, report)
    _check_out_channels(cfg, counts, report)
    # One process of a distributed run prints it for all.
    is_printed = os.environ.get('RANK', '0') == '0' and not disagreement
    for note in dict.fromkeys(report.notes) if is_printed else ():
        print_log(note, logger='current', level=logging.WARNING)
    lines = list(dict.fromkeys(report.problems))
    if lines and (report.wanted or report.count):
        lines += _config_lines(cfg, report, counts)
    if disagreement:
        lines.append(disagreement)
    if lines:
        raise UsageError('\n'.join(lines))


def _compare_phases(lists: Sequence[ClassList], report: Report) -> None:
    """Report datasets that number their classes differently."""
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
            report.problems += [f'  {one}: {quoted(first)}', f'  {other}: {quoted(second)}']
            continue
        for key, names, others in ((one, first, second), (other, second, first)):
            report.problems.append(f'  {key} alone: {quoted((name for name in names if name not in others), "none")}')


def _compare_count(entry: ClassList, counts: Mapping[str, int], report: Report) -> None:
    """Report heads with fewer classes than a dataset, or more."""
    if entry.leaf.phase != 'train' and not entry.is_read:
        return
    for key, count in counts.items():
        # In panoptic models, only what counts both kinds counts all names.
        objects = entry.things if key.endswith('.num_classes') else None
        names = objects if objects is not None else len(entry.by_id)
        if entry.highest is not None and entry.highest >= count:
            problem = f'{entry.source} has the class id {entry.highest}, and {key} = {count} allows 0 to {count - 1}.'
            if entry.sampled and entry.highest == count:
                problem += ' If 0 marks pixels without a class: reduce_zero_label=True.'
        elif names > count and (entry.highest is None or entry.sampled):
            problem = f'{names} classes, {quoted(entry.by_id)}, are more than {key} = {count} allows.'
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
    """Compare the files of COCO's metrics if they are not those of the datasets."""
    for phase, key, metric in evaluators(cfg, ('val', 'test')):
        path = metric.get('ann_file')
        entry = next((entry for entry in lists if entry.leaf.phase == phase and entry.names), None)
        if not entry or not isinstance(path, str) or is_remote(metric) or os.path.realpath(path) == entry.source:
            continue
        is_lvis, is_coco = (is_kind(METRICS, metric, entry.leaf.scope, name) for name in ('LVISMetric', 'CocoMetric'))
        if is_coco and not is_lvis:
            check_coco(entry._replace(leaf=entry.leaf._replace(key=key)), path, entry.stated, report)


def _check_out_channels(cfg: Any, counts: Mapping[str, int], report: Report) -> None:
    """Report segmentation heads with another number of channels than classes."""
    for key, count in counts.items():
        name = key.rpartition('.')[0]
        head = present_value(cfg, name)
        channels = head.get('out_channels') if isinstance(head, Mapping) else None
        if channels in (None, count) or (channels, count) == (1, 2):
            continue
        # In other heads, such as Mask2Former's, out_channels are the channels of the pixel features.
        if is_kind(MODELS, head, cfg.get('default_scope'), 'BaseDecodeHead'):
            report.problems.append(f'{name}.out_channels = {channels} must be {key} = {count}, or 1 for two classes.')


def _config_lines(cfg: Any, report: Report, counts: Mapping[str, int]) -> list[str]:
    """Return lines of a config with which datasets and heads would agree."""
    names, count = report.wanted, len(report.wanted) if report.wanted else report.count
    settings = {key: str(count) for key, value in counts.items() if value != count}
    lines = ['What would fit, as lines of the config:']
    if names:
        lines.append(f'  classes = {names!r}')
        settings |= {f'{leaf.key}.metainfo.classes': 'classes' for leaf in leaves(cfg, ('train', 'val', 'test'))}
    # A config cannot override single items of a list that it inherits.
    in_lists = {key: value for key, value in settings.items() if any(part.isdigit() for part in key.split('.'))}
    lines += [f'  # {key} = {value}' for key, value in in_lists.items()]
    tree = Config()
    tree.merge_from_dict({key: value for key, value in settings.items() if key not in in_lists})
    return lines + [f'  {key} = {_as_code(value)}' for key, value in tree.items()]


def _as_code(value: Any) -> str:
    return value if isinstance(value, str) else f'dict({", ".join(f"{k}={_as_code(v)}" for k, v in value.items())})'
