"""A config's datasets: their settings, and what their classes make of them without reading annotations."""

import copy
import importlib.util
import inspect
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from mmengine.dataset import BaseDataset
from mmengine.registry import DATASETS

from mmevm.registry import LIBRARIES, type_name

#: Where wrappers such as ``RepeatDataset`` and ``ConcatDataset`` keep what they wrap.
WRAPPED = ('dataset', 'datasets')
_INSTALLED = tuple(name for name in LIBRARIES if importlib.util.find_spec(name))


class Leaf(NamedTuple):
    """The settings of one dataset, inside its wrappers.

    Attributes:
        key (str): Dotted key in the config, e.g. ``train_dataloader.dataset.datasets.0``.
        settings (dict): The settings.
        phase (str): ``'train'``, ``'val'`` or ``'test'``.
    """

    key: str
    settings: Any
    phase: str

    @property
    def name(self) -> str:
        """Its type, without scope."""
        return type_name(self.settings) or ''


def _walk(value: Any, key: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, list | tuple):
        for index, part in enumerate(value):
            yield from _walk(part, f'{key}.{index}')
    elif isinstance(value, Mapping):
        inner = [name for name in WRAPPED if isinstance(value.get(name), list | tuple | Mapping)]
        if not inner:
            yield key, value
        for name in inner:
            yield from _walk(value[name], f'{key}.{name}')


def loaders(cfg: Any, phases: Iterable[str]) -> Iterator[tuple[str, str, Any]]:
    """Yield phase, key and settings of the data loaders; a phase may have a list of them."""
    for phase in phases:
        key = f'{phase}_dataloader'
        value = cfg.get(key)
        is_list = isinstance(value, list | tuple)
        for index, loader in enumerate(value if is_list else [value]):
            if isinstance(loader, Mapping) and 'dataset' in loader:
                yield phase, f'{key}.{index}' if is_list else key, loader


def leaves(cfg: Any, phases: Iterable[str]) -> Iterator[Leaf]:
    """Yield the datasets of the phases' data loaders, inside their wrappers."""
    for phase, key, loader in loaders(cfg, phases):
        for leaf, settings in _walk(loader['dataset'], f'{key}.dataset'):
            yield Leaf(leaf, settings, phase)


def evaluators(cfg: Any, phases: Iterable[str]) -> Iterator[tuple[str, str, Any]]:
    """Yield phase, key and settings of the phases' metrics, and of their wrappers."""

    def walk(value: Any, key: str) -> Iterator[tuple[str, Any]]:
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
    """Return whether a dataset, a step of its pipeline or a metric reads from anywhere but the local disk."""
    if '://' in str(settings.get('data_root')):
        return True
    backend = settings.get('backend_args') or settings.get('file_client_args') or {}
    if backend.get('backend', 'local') not in ('local', 'disk'):
        return True
    return any(is_remote(step) for step in settings.get('pipeline') or () if isinstance(step, Mapping))


def resolve(registry: Any, kind: Any, scope: str | None) -> Any:
    """Return what one of MMEngine's root registries would build for a ``type``, ``None`` for an unknown name."""
    if not isinstance(kind, str):
        return kind
    # Without a default scope, a plain name is searched in every library.
    names = [kind] if scope or '.' in kind else [kind, *(f'{library}.{kind}' for library in _INSTALLED)]
    with registry.switch_scope_and_registry(scope) as scoped:
        return next((found for name in names if (found := scoped.get(name))), None)


def dataset_class(settings: Mapping, scope: str | None) -> type | None:
    """Return the class of a dataset, or ``None`` for an unknown name or something other than a class."""
    kind = resolve(DATASETS, settings.get('type'), scope)
    return kind if inspect.isclass(kind) else None


def outline(settings: Mapping, scope: str | None) -> Any | None:
    """Build a dataset without pipeline and without reading its annotations (MMEngine's ``lazy_init``).

    Its attributes then name the files that it would read, including those that its class adds to the settings, and its
    ``metainfo`` has its classes.

    Args:
        settings (Mapping): As in a config.
        scope (str | None): The config's ``default_scope``.

    Returns:
        BaseDataset | None: ``None`` for classes that are unknown, not MMEngine's, or read their files at once.

    Raises:
        Exception: Whatever the class raises for these settings.
    """
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
