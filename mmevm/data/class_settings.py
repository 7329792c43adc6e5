"""Every number in a config that counts classes, set to those of a dataset."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from mmevm.data.records import Findings
from mmevm.engine.checks.class_counts import class_counts
from mmevm.engine.checks.datasets import evaluators
from mmevm.engine.options import parts, present_value

_PHASES = ('train', 'val', 'test')
#: Settings with a number for each class.
_PER_CLASS = ('class_weight', 'pos_weight', 'margins')


def set_class_count(cfg: Any, count: int, findings: Findings) -> None:
    """Set the number of classes of a config's heads, losses, augmentations, data preprocessor and metrics.

    Args:
        cfg (Config): Changed in place.
        count (int): The number of classes.
        findings (Findings): Gets a note for every weight of classes that is dropped.
    """
    before = class_counts(cfg)
    for key in before:
        _set_count(cfg, key, count)
    for part in _other_counters(cfg):
        part['num_classes'] = count
    if isinstance(cfg.get('num_classes'), int):
        cfg['num_classes'] = count
    for key, part in parts(cfg.model, 'model'):
        for name in _PER_CLASS:
            _set_weights(part, name, key, set(before.values()), count, findings)
        _set_channels(part, count)
    for part in _with_topk(cfg):
        part['topk'] = _capped(part['topk'], count)


def _set_count(cfg: Any, key: str, count: int) -> None:
    parent, _, name = key.rpartition('.')
    part = present_value(cfg, parent)
    part[name] = count
    if name == 'num_things_classes':
        part['num_stuff_classes'] = 0


def _other_counters(cfg: Any) -> Iterator[Any]:
    """Yield the data preprocessors, batch augmentations and metrics that have a number of classes."""
    model = cfg.model
    found = [cfg.get('data_preprocessor'), model.get('data_preprocessor')]
    found += [part for _, part in parts(model.get('train_cfg'), 'train_cfg')]
    found += [part for section in found[:2] for _, part in parts((section or {}).get('batch_augments'), 'augments')]
    found += [metric for _, _, metric in evaluators(cfg, _PHASES)]
    yield from (part for part in found if isinstance(part, Mapping) and isinstance(part.get('num_classes'), int))


def _set_weights(part: Any, name: str, key: str, before: Collection[int], count: int, findings: Findings) -> None:
    weights = part.get(name)
    if not isinstance(weights, list | tuple | str):  # a str is a file of weights
        return
    fitting = None if isinstance(weights, str) else _fitting_weights(weights, before, count)
    if fitting is not None:
        part[name] = fitting
        return
    part.pop(name)
    findings.note(f'The weights of the classes of another dataset are dropped: {key}.{name}')


def _fitting_weights(weights: Sequence[float], before: Collection[int], count: int) -> list[float] | None:
    """Return as many weights as there are classes, if those of all classes are equal; the background's is kept."""
    background = list(weights[-1:]) if len(weights) - 1 in before else []
    own = list(weights[: len(weights) - len(background)])
    return own[:1] * count + background if len(own) in before and len(set(own)) == 1 else None


def _set_channels(part: Any, count: int) -> None:
    """Remove the channels of a head that were for other classes; one channel serves two classes."""
    if 'num_classes' in part and 'channels' in part and 'out_channels' in part:
        if part['num_classes'] == count and part['out_channels'] != (1 if count == 2 else count):
            part.pop('out_channels')
            part.pop('threshold', None)


def _with_topk(cfg: Any) -> Iterator[Any]:
    found = [part for _, part in parts(cfg.model, 'model')] + [part for _, _, part in evaluators(cfg, _PHASES)]
    yield from (part for part in found if part.get('topk') is not None)


def _capped(topk: Any, count: int) -> Any:
    if isinstance(topk, int):
        return min(topk, count)
    return type(topk)(value for value in topk if value <= count) or type(topk)([1])
