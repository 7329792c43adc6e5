"""Whether the parts of a classification config agree on the number of classes, before a model is built."""

import inspect
import os
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from mmevm.engine.checks.datasets import leaf_datasets
from mmevm.errors import UsageError
from mmevm.registry import type_name


class Stated(NamedTuple):
    """A number of classes, and where the config states it.

    Attributes:
        key (str): Key in the config, or data set.
        number (int): Classes.
        binding (bool): Whether another number anywhere else is an error.
    """

    key: str
    number: int
    binding: bool = True


def _by_model(cfg: Any, training: bool) -> Iterator[Stated]:
    head = cfg.model.head
    yield Stated('model.head.num_classes', head.num_classes)
    loss = head.get('loss') or {}
    if not training or not isinstance(loss, dict):
        return
    if loss.get('num_classes'):
        yield Stated('model.head.loss.num_classes', loss['num_classes'])
    if isinstance(loss.get('class_weight'), list | tuple):
        yield Stated('model.head.loss.class_weight', len(loss['class_weight']))
    key = 'model.data_preprocessor' if cfg.model.get('data_preprocessor') else 'data_preprocessor'
    settings = cfg.model.get('data_preprocessor') or cfg.get('data_preprocessor') or {}
    # It is asked for the number alone where labels are mixed.
    mixes = settings.get('to_onehot') or settings.get('batch_augments', cfg.model.get('train_cfg'))
    if mixes and settings.get('num_classes'):
        yield Stated(f'{key}.num_classes', settings['num_classes'])


def _by_data(cfg: Any, phase: str) -> Iterator[Stated]:
    loader = cfg.get(f'{phase}_dataloader') or {}
    for dataset in leaf_datasets(loader.get('dataset')):
        key = f'{phase}_dataloader.dataset ({type_name(dataset)})'
        names = dataset.get('classes') or (dataset.get('metainfo') or {}).get('classes')
        if isinstance(names, str) and os.path.isfile(os.path.expanduser(names)):
            with open(os.path.expanduser(names), encoding='utf-8') as lines:
                names = lines.read().splitlines()
        if isinstance(names, list | tuple):
            yield Stated(f'{phase}_dataloader.dataset.classes', len(names))
        else:
            yield from _by_type(key, dataset.get('type'))
        if type_name(dataset) == 'CustomDataset' and dataset.get('with_label', True) and not dataset.get('ann_file'):
            yield from _by_folders(key, dataset)


def _by_type(key: str, kind: Any) -> Iterator[Stated]:
    from mmpretrain.datasets import CustomDataset
    from mmpretrain.registry import DATASETS

    if isinstance(kind, str):
        try:
            kind = DATASETS.get(kind)
        except RuntimeError:  # there is no such type, which MMEngine will say
            return
    names = (getattr(kind, 'METAINFO', None) or {}).get('classes')
    if names:
        # Those that read their labels from files, as ImageNet does, may hold any.
        yield Stated(key, len(names), binding=not (inspect.isclass(kind) and issubclass(kind, CustomDataset)))


def _by_folders(key: str, dataset: dict) -> Iterator[Stated]:
    prefix = dataset.get('data_prefix') or ''
    if isinstance(prefix, dict):
        prefix = prefix.get('img_path') or ''
    folder = os.path.join(os.path.expanduser(dataset.get('data_root') or ''), prefix)
    if os.path.isdir(folder):
        with os.scandir(folder) as entries:
            yield Stated(
                f'{key}, folders in {folder}',
                sum(entry.is_dir() and not entry.name.startswith('.') for entry in entries),
            )


def _evaluators(cfg: Any, phase: str) -> Iterator[tuple[str, dict]]:
    evaluators = cfg.get(f'{phase}_evaluator') or {}
    if isinstance(evaluators, dict):
        yield f'{phase}_evaluator', evaluators
    else:
        yield from ((f'{phase}_evaluator.{index}', evaluator) for index, evaluator in enumerate(evaluators))


def _too_many_best(cfg: Any, phases: Iterable[str], count: int) -> Iterator[tuple[str, list[int]]]:
    """The keys that ask whether the truth is among more of the best classes than there are."""
    head = cfg.model.head
    asked = [('model.head', head)] if 'train' in phases and head.get('cal_acc') else []
    asked += [item for phase in phases if phase != 'train' for item in _evaluators(cfg, phase)]
    for key, settings in asked:
        topk = settings.get('topk') or 1
        values = list(topk) if isinstance(topk, list | tuple) else [topk]
        if max(values) > count:
            yield f'{key}.topk', values


def check_classifier(cfg: Any, phases: Iterable[str]) -> None:
    """Stop where parts of a classification config state different numbers of classes.

    Args:
        cfg (Config): A whole config; others than MMPretrain's, and models without one classification head, pass.
        phases (Iterable[str]): The phases that will run.

    Raises:
        UsageError: They differ, or more of the best classes are asked for than there are; all keys are named.
    """
    phases = list(phases)
    head = (cfg.get('model') or {}).get('head')
    if cfg.get('default_scope') != 'mmpretrain' or not isinstance(head, dict) or not head.get('num_classes'):
        return
    data = [stated for phase in phases for stated in _by_data(cfg, phase)]
    stated = [*_by_model(cfg, 'train' in phases), *data]
    stated += [
        Stated(f'{key}.num_classes', settings['num_classes'])
        for phase in phases
        if phase != 'train'
        for key, settings in _evaluators(cfg, phase)
        if settings.get('num_classes')
    ]
    # What the data holds cannot be changed in the config.
    count = next((item.number for item in data if item.binding), head.num_classes)
    best = list(_too_many_best(cfg, phases, count))
    if all(item.number == count for item in stated if item.binding) and not best:
        return
    lines = [f'  {item.key}: {item.number}' for item in stated] + [f'  {key}: {values}' for key, values in best]
    changes = [f'{item.key}={count}' for item in stated if item.key.endswith('.num_classes') and item.number != count]
    changes += [f"'{key}={[value for value in values if value <= count] or [1]}'" for key, values in best]
    advice = f'\nFor {count} classes: --cfg-options {" ".join(changes)}' if changes else ''
    raise UsageError('The config does not agree on the number of classes:\n' + '\n'.join(lines) + advice)
