"""Where a config expects its data: find the paths, move them to another root, and say what is missing."""

import os
from collections.abc import Iterable, Iterator
from typing import Any

from mmevm.cli.errors import UsageError

# Small sets that the libraries download by themselves.
_SELF_DOWNLOADING = ('MNIST', 'FashionMNIST', 'CIFAR10', 'CIFAR100')

_SOURCES = {
    'mmdet': ('COCO 2017',
              'the download page of cocodataset.org: train2017.zip, val2017.zip and annotations_trainval2017.zip '
              '(20 GB), or `pip install openmim && mim download mmdet --dataset coco2017`',
              'data/mini/coco'),
    'mmseg': ('ADE20K',
              'the scene parsing challenge page of MIT CSAIL: ADEChallengeData2016.zip (1 GB)',
              'data/mini/ade/ADEChallengeData2016'),
    'mmpretrain': ('ImageNet-1k',
                   'image-net.org after registration, sorted into train/<wnid>/ and val/<wnid>/, or '
                   '`pip install openmim && mim download mmpretrain --dataset imagenet1k`',
                   'data/mini/imagenet'),
}


def leaf_datasets(dataset: Any) -> Iterator[dict]:
    """Yield the dataset settings inside wrappers such as ``RepeatDataset`` or ``ConcatDataset``."""
    if isinstance(dataset, list | tuple):
        for part in dataset:
            yield from leaf_datasets(part)
    elif isinstance(dataset, dict):
        inner = [dataset[key] for key in ('dataset', 'datasets') if key in dataset]
        if inner:
            yield from leaf_datasets(inner)
        else:
            yield dataset


def _loaders(cfg: Any, phases: Iterable[str]) -> Iterator[dict]:
    for phase in phases:
        loader = cfg.get(f'{phase}_dataloader')
        if isinstance(loader, dict) and 'dataset' in loader:
            yield loader


def _evaluators(cfg: Any, phases: Iterable[str]) -> Iterator[dict]:
    for phase in phases:
        evaluator = cfg.get(f'{phase}_evaluator')
        yield from evaluator if isinstance(evaluator, list | tuple) else [evaluator or {}]


def _is_local(path: str) -> bool:
    return '://' not in path


def _dataset_paths(dataset: dict) -> Iterator[str]:
    if dataset.get('type') in _SELF_DOWNLOADING or dataset.get('backend_args'):
        return
    root = dataset.get('data_root') or ''
    prefix = dataset.get('data_prefix') or dataset.get('split') or ''
    parts = [dataset.get('ann_file'), *(prefix.values() if isinstance(prefix, dict) else [prefix])]
    for part in [part for part in parts if part and isinstance(part, str)] or ['']:
        path = os.path.join(root, part)
        if path and _is_local(path):
            yield path


def missing_paths(cfg: Any, phases: Iterable[str]) -> list[str]:
    """List the files and folders that the data loaders and evaluators of ``phases`` name and that do not exist.

    Args:
        cfg (Config): A whole config.
        phases (Iterable[str]): Any of ``'train'``, ``'val'``, ``'test'``.

    Returns:
        list[str]: Absolute paths, each once, in the config's order.
    """
    phases = list(phases)
    paths = [path for loader in _loaders(cfg, phases) for dataset in leaf_datasets(loader['dataset'])
             for path in _dataset_paths(dataset)]
    for evaluator in _evaluators(cfg, phases):
        ann_file = evaluator.get('ann_file')
        if isinstance(ann_file, str) and _is_local(ann_file) and not evaluator.get('backend_args'):
            paths.append(ann_file)
    return [path for path in dict.fromkeys(os.path.abspath(path) for path in paths) if not os.path.exists(path)]


def check_data(cfg: Any, phases: Iterable[str], command: str) -> None:
    """Stop with directions when data that the config needs is absent.

    Args:
        cfg (Config): A whole config.
        phases (Iterable[str]): The phases that will run.
        command (str): The command line so far, repeated in the directions.

    Raises:
        UsageError: Something is missing; the message says what, how to get it and how to make miniature data.
    """
    missing = missing_paths(cfg, phases)
    if not missing:
        return
    scope = cfg.get('default_scope')
    name, source, mini = _SOURCES.get(scope, ('the data set', 'its publisher', 'data/mini'))
    lines = [f'The data set is not there. The config expects {name} here:']
    lines += [f'  missing: {path}' for path in missing]
    lines += [f'To get it: {source}.',
              'If it lies elsewhere: add --cfg-options data_root=/where/it/lies']
    if scope in _SOURCES:
        lines += ['To try things on small rendered pictures in the same layout, made in a minute:',
                  '  python tools/make_mini_data.py --out data/mini',
                  f'  {command} --cfg-options data_root={mini}']
    raise UsageError('\n'.join(lines))


def _moved(value: Any, old: str, new: str) -> Any:
    if isinstance(value, dict):
        for key, item in value.items():
            # Pipelines hold paths of other kinds; only data sets and evaluators lie under the root.
            if key != 'pipeline':
                value[key] = _moved(item, old, new)
    elif isinstance(value, list | tuple):
        return type(value)(_moved(item, old, new) for item in value)
    elif isinstance(value, str) and (value.rstrip('/') == old or value.startswith(old + '/')):
        return os.path.join(new, value[len(old):].lstrip('/'))
    return value


def move_data_root(cfg: Any, new_root: str) -> None:
    """Point every data loader and evaluator to ``new_root``.

    A config's ``data_root`` is a variable that its data sets were built from, so that merging a new value into the
    finished config would change nothing.

    Args:
        cfg (Config): Changed in place.
        new_root (str): Folder with the layout of the old one.

    Raises:
        UsageError: The config has no root, or several.
    """
    phases = ('train', 'val', 'test')
    roots = {dataset.get('data_root') for loader in _loaders(cfg, phases)
             for dataset in leaf_datasets(loader['dataset'])}
    roots = {root.rstrip('/') for root in roots if root}
    if len(roots) != 1:
        raise UsageError(f'data_root={new_root} needs a config with one data root, got {sorted(roots) or "none"}; set '
                         'train_dataloader.dataset.data_root and its like one by one.')
    old = roots.pop()
    for phase in phases:
        for key in (f'{phase}_dataloader', f'{phase}_evaluator'):
            if cfg.get(key):
                cfg[key] = _moved(cfg[key], old, new_root)
    cfg['data_root'] = new_root
