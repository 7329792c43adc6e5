"""A config's datasets: where they stand in it, and what their classes make of their settings, before any is built."""

import copy
import importlib.util
import inspect
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from mmevm.registry import type_name

#: Where wrappers such as ``RepeatDataset`` and ``ConcatDataset`` keep what they wrap.
WRAPPED = ('dataset', 'datasets')
_LIBRARIES = tuple(name for name in ('mmdet', 'mmseg', 'mmpretrain') if importlib.util.find_spec(name))


class Leaf(NamedTuple):
    """The settings of one dataset, inside of whatever wraps it.

    Attributes:
        key (str): Where they stand in the config, e.g. ``train_dataloader.dataset.datasets.0``.
        settings (dict): What stands there.
        phase (str): ``'train'``, ``'val'`` or ``'test'``.
    """

    key: str
    settings: dict
    phase: str

    @property
    def name(self) -> str:
        """What to call it: its type, without scope."""
        return type_name(self.settings, '')


def _walk(value: Any, key: str) -> Iterator[tuple[str, dict]]:
    if isinstance(value, list | tuple):
        for index, part in enumerate(value):
            yield from _walk(part, f'{key}.{index}')
    elif isinstance(value, Mapping):
        inner = [name for name in WRAPPED if isinstance(value.get(name), list | tuple | Mapping)]
        if not inner:
            yield key, value
        for name in inner:
            yield from _walk(value[name], f'{key}.{name}')


def leaf_datasets(dataset: Any) -> Iterator[dict]:
    """Yield the dataset settings inside wrappers such as ``RepeatDataset`` or ``ConcatDataset``."""
    for _, settings in _walk(dataset, ''):
        yield settings


def loaders(cfg: Any, phases: Iterable[str]) -> Iterator[tuple[str, str, dict]]:
    """Yield phase, key and settings of the data loaders; a phase may have a list of them."""
    for phase in phases:
        key = f'{phase}_dataloader'
        value = cfg.get(key)
        many = isinstance(value, list | tuple)
        for index, loader in enumerate(value if many else [value]):
            if isinstance(loader, Mapping) and 'dataset' in loader:
                yield phase, f'{key}.{index}' if many else key, loader


def leaves(cfg: Any, phases: Iterable[str]) -> Iterator[Leaf]:
    """Yield the datasets of the phases' data loaders, inside of their wrappers."""
    for phase, key, loader in loaders(cfg, phases):
        for where, settings in _walk(loader['dataset'], f'{key}.dataset'):
            yield Leaf(where, settings, phase)


def evaluators(cfg: Any, phases: Iterable[str]) -> Iterator[tuple[str, str, dict]]:
    """Yield phase, key and settings of the phases' metrics, inside of whatever wraps them."""

    def walk(value: Any, key: str) -> Iterator[tuple[str, dict]]:
        if isinstance(value, list | tuple):
            for index, part in enumerate(value):
                yield from walk(part, f'{key}.{index}')
        elif isinstance(value, Mapping):
            yield key, value
            if 'metrics' in value:
                yield from walk(value['metrics'], f'{key}.metrics')

    for phase in phases:
        for key, settings in walk(cfg.get(f'{phase}_evaluator'), f'{phase}_evaluator'):
            yield phase, key, settings


def is_remote(settings: Mapping) -> bool:
    """Whether a dataset, a step of its pipeline or a metric reads from elsewhere than the local disk."""
    if '://' in str(settings.get('data_root')):
        return True
    backend = settings.get('backend_args') or settings.get('file_client_args') or {}
    if backend.get('backend', 'local') not in ('local', 'disk'):
        return True
    return any(is_remote(step) for step in settings.get('pipeline') or () if isinstance(step, Mapping))


def resolve(registry: Any, kind: Any, scope: str | None) -> Any:
    """What a registry would build for a ``type``: of MMEngine's root registries, ``None`` for an unknown name."""
    if not isinstance(kind, str):
        return kind
    # Without a default scope, a plain name is looked for in every library.
    names = [kind] if scope or '.' in kind else [kind, *(f'{library}.{kind}' for library in _LIBRARIES)]
    with registry.switch_scope_and_registry(scope) as scoped:
        return next((found for name in names if (found := scoped.get(name))), None)


def dataset_class(settings: Mapping, scope: str | None) -> type | None:
    """The class of a dataset, or ``None`` for an unknown name or something other than a class."""
    from mmengine.registry import DATASETS

    kind = resolve(DATASETS, settings.get('type'), scope)
    return kind if inspect.isclass(kind) else None


def outline(settings: Mapping, scope: str | None) -> Any | None:
    """Build a dataset without pipeline and without reading its annotations (MMEngine's ``lazy_init``).

    Its attributes then tell which files it would read, with whatever its class adds to the settings, and its
    ``metainfo`` which classes it has.

    Args:
        settings (Mapping): As in a config.
        scope (str | None): The config's ``default_scope``.

    Returns:
        BaseDataset | None: ``None`` for classes that are unknown or not MMEngine's, or that cannot do without reading.

    Raises:
        Exception: Whatever the class raises for these settings.
    """
    from mmengine.dataset import BaseDataset
    from mmengine.registry import DATASETS

    kind = dataset_class(settings, scope)
    if kind is None or not issubclass(kind, BaseDataset):
        return None
    lazy = dict(copy.deepcopy(dict(settings)), type=kind, lazy_init=True)
    if 'pipeline' in lazy:
        lazy['pipeline'] = []
    with DATASETS.switch_scope_and_registry(scope) as registry:
        try:
            return registry.build(lazy)
        except TypeError as error:
            if 'lazy_init' in str(error):
                return None
            raise
