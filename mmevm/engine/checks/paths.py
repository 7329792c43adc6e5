"""Where a config expects its data: find the paths, move them to another root, and report what is missing."""

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from mmevm.engine.checks.datasets import Leaf, evaluators, is_remote, leaves
from mmevm.errors import UsageError

# By type of dataset: its name, its source, and where tools/make_mini_data.py puts a miniature of it.
_SOURCES = {
    'CocoDataset': (
        'COCO 2017',
        'the download page of cocodataset.org: train2017.zip, val2017.zip and annotations_trainval2017.zip (20 GB), '
        'or `pip install openmim && mim download mmdet --dataset coco2017`',
        'data/mini/coco',
    ),
    'ADE20KDataset': (
        'ADE20K',
        'the scene parsing challenge page of MIT CSAIL: ADEChallengeData2016.zip (1 GB)',
        'data/mini/ade/ADEChallengeData2016',
    ),
    'ImageNet': (
        'ImageNet-1k',
        'image-net.org after registration, sorted into train/<wnid>/ and val/<wnid>/, or '
        '`pip install openmim && mim download mmpretrain --dataset imagenet1k`',
        'data/mini/imagenet',
    ),
}
_FILE_SETTING = re.compile(r'_(file|path)$')
# 'file', 'folder', or None for either.
_Kind = str | None
_Paths = Iterator[tuple[Any, _Kind]]


class _Need(NamedTuple):
    """A path that must exist: its kind, and the key of the setting and the type of the dataset that name it."""

    path: str
    kind: _Kind
    key: str
    dataset: str | None = None

    def problem(self) -> str | None:
        """Return what is wrong with it, or ``None``."""
        is_folder = os.path.isdir(self.path)
        if not os.path.exists(self.path):
            fault = 'missing'
        elif self.kind and is_folder != (self.kind == 'folder'):
            fault = f'not a {self.kind}'
        elif self.kind and not (next(os.scandir(self.path), None) if is_folder else os.path.getsize(self.path)):
            fault = 'empty'
        else:
            return None
        return f'{fault}: {self.path}' + ('' if self.dataset else f' ({self.key})')


def _stated_paths(settings: Mapping, joined: bool) -> _Paths:
    """Yield the paths in a dataset's settings.

    ``joined`` says that its class joins them with ``data_root``, as MMEngine's do. For other classes, a path that
    exists either way is accepted.
    """
    root = settings.get('data_root') or ''
    prefix = settings.get('data_prefix')
    prefixes = prefix.values() if isinstance(prefix, Mapping) else [prefix]
    stated = [(settings.get('ann_file'), 'file'), *((path, 'folder') for path in prefixes)]
    for path, kind in [(path, kind) for path, kind in stated if path and isinstance(path, str)] or [('', 'folder')]:
        as_is = '://' in path or (not joined and os.path.exists(path))
        yield (path if as_is else os.path.join(root, path)), (kind if joined else None)


def _class_paths(dataset: Any, settings: Mapping) -> _Paths:
    """Yield the paths of an outlined dataset, including those that its class adds to the settings."""
    yield dataset.ann_file, 'file'
    for path in dataset.data_prefix.values():
        yield path, 'folder'
    root = dataset.data_root or ''
    for name, value in {**vars(dataset), **settings}.items():
        # CrowdHuman's extra file is optional: without it, the images are measured.
        if name == 'ann_file' or name.startswith(('_', 'extra')) or not _FILE_SETTING.search(name):
            continue
        # Some classes join these with the root, some do not.
        if isinstance(value, str) and value and not os.path.exists(value):
            yield (value if value.startswith(root) else os.path.join(root, value)), 'file'


def _dataset_paths(leaf: Leaf) -> _Paths:
    settings = leaf.settings
    if is_remote(settings) or settings.get('download'):
        return
    try:
        dataset = leaf.outline()
    except Exception as error:
        # Some classes open their files at once; a list of those missing helps more than their errors.
        stated = list(_stated_paths(settings, joined=True))
        if not any(need.problem() for need in _needs(stated, leaf.key)):
            raise UsageError(f'{leaf.key} ({leaf.name}) cannot be built: {error}') from error
        yield from stated
        return
    if dataset is None:
        yield from _stated_paths(settings, joined=leaf.kind is None)
    elif not getattr(dataset, 'download', False):
        yield from _class_paths(dataset, settings)


def _needs(paths: Iterable[tuple[Any, _Kind]], key: str, dataset: str | None = None) -> list[_Need]:
    local = [(path, kind) for path, kind in paths if path and isinstance(path, str) and '://' not in path]
    return [_Need(os.path.abspath(path), kind, key, dataset) for path, kind in local]


def _all_needs(cfg: Any, phases: Iterable[str]) -> list[_Need]:
    """Return what the phases need, each path once, in the config's order."""
    phases = list(phases)
    needs: list[_Need] = []
    for leaf in leaves(cfg, phases):
        needs += _needs(_dataset_paths(leaf), leaf.key, leaf.name)
    for _, key, metric in evaluators(cfg, phases):
        if not is_remote(metric):
            needs += _needs([(metric.get('ann_file'), 'file')], f'{key}.ann_file')
            needs += _needs([(metric.get('seg_prefix'), 'folder')], f'{key}.seg_prefix')
    first: dict[str, _Need] = {}
    for need in needs:
        first.setdefault(need.path, need)
    return list(first.values())


def check_data(cfg: Any, phases: Iterable[str], command: str) -> None:
    """Stop with instructions if data that the config needs is missing.

    Args:
        cfg (Config): A complete config.
        phases (Iterable[str]): The phases that will run.
        command (str): The command line so far, repeated in the instructions.

    Raises:
        UsageError: Something is missing, empty, or a folder instead of a file; the message says what, how to get it,
            and how to make miniature data.
    """
    faulty = [(need, problem) for need in _all_needs(cfg, phases) if (problem := need.problem())]
    if not faulty:
        return
    datasets = {need.dataset for need, _ in faulty if need.dataset}
    source = _SOURCES.get(datasets.pop()) if len(datasets) == 1 else None
    lines = [f'The data set is not there. The config expects {source[0] if source else "it"} here:']
    lines += [f'  {problem}' for _, problem in faulty]
    if source:
        lines.append(f'To get it: {source[1]}.')
    lines.append('If it is located elsewhere: add --cfg-options data_root=/where/it/is')
    if source:
        lines += [
            'To try things on small rendered images in the same layout, made in a minute:',
            '  python tools/make_mini_data.py --out data/mini',
            f'  {command} --cfg-options data_root={source[2]}',
        ]
    raise UsageError('\n'.join(lines))


def _moved(value: Any, old: str, new: str) -> Any:
    if isinstance(value, dict):
        for key, item in value.items():
            # Pipelines have other paths; only those of datasets and evaluators are below the root.
            if key != 'pipeline':
                value[key] = _moved(item, old, new)
    elif isinstance(value, list | tuple):
        return type(value)(_moved(item, old, new) for item in value)
    elif isinstance(value, str) and (value.rstrip('/') == old or value.startswith(old + '/')):
        return os.path.join(new, value[len(old) :].lstrip('/'))
    return value


def move_data_root(cfg: Any, new_root: str) -> None:
    """Point every data loader and evaluator to ``new_root``.

    A config's ``data_root`` is a variable from which its datasets were built, so merging a new value into the finished
    config would change nothing.

    Args:
        cfg (Config): Changed in place.
        new_root (str): Folder with the layout of the old one.

    Raises:
        UsageError: The config has no root, or several.
    """
    if not isinstance(new_root, str) or not new_root:
        raise UsageError(f'data_root needs a folder, got {new_root!r}.')
    phases = ('train', 'val', 'test')
    roots = {root.rstrip('/') for leaf in leaves(cfg, phases) if (root := leaf.settings.get('data_root'))}
    if len(roots) != 1:
        raise UsageError(
            f'data_root={new_root} needs a config with one data root, got {sorted(roots) or "none"}; set '
            'train_dataloader.dataset.data_root and the others one by one.'
        )
    old = roots.pop()
    for phase in phases:
        for key in (f'{phase}_dataloader', f'{phase}_evaluator'):
            if cfg.get(key):
                cfg[key] = _moved(cfg[key], old, new_root)
    cfg['data_root'] = new_root
