"""A config's datasets: their settings, and what their classes make of them without reading annotations."""

import copy
import importlib.util
import inspect
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from mmengine.dataset import BaseDataset
from mmengine.registry import DATASETS

from mmevm.engine.options import parts
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
        scope (str | None): The config's ``default_scope``.
    """

    key: str
    settings: Any
    phase: str
    scope: str | None

    @property
    def name(self) -> str:
        """Its type, without scope."""
        return type_name(self.settings) or ''

    @property
    def kind(self) -> type | None:
        """Its class, or ``None`` for an unknown name or something other than a class."""
        kind = resolve(DATASETS, self.settings.get('type'), self.scope)
        return kind if inspect.isclass(kind) else None

    def outline(self) -> Any | None:
        """Build the dataset without pipeline and without reading its annotations (MMEngine's ``lazy_init``).

        Its attributes then name the files that it would read, including those that its class adds to the settings, and
        its ``metainfo`` has its classes.

        Returns:
            BaseDataset | None: ``None`` for classes that are unknown, not MMEngine's, or read their files at once.

        Raises:
            Exception: Whatever the class raises for these settings.
        """
        kind = self.kind
        if kind is None or not issubclass(kind, BaseDataset):
            return None
        lazy = dict(copy.deepcopy(dict(self.settings)), type=kind, lazy_init=True)
        if 'pipeline' in lazy:
            lazy['pipeline'] = []
        with DATASETS.switch_scope_and_registry(self.scope) as registry:
            try:
                return registry.build(lazy)
            except TypeError as error:
                if 'lazy_init' in str(error):
                    return None
                raise


def loaders(cfg: Any, phases: Iterable[str]) -> Iterator[tuple[str, str, Any]]:
    """Yield phase, key and settings of the data loaders; a phase may have a list of them."""
    for phase in phases:
        for key, loader in parts(cfg.get(f'{phase}_dataloader'), f'{phase}_dataloader', names=()):
            if 'dataset' in loader:
                yield phase, key, loader


def leaves(cfg: Any, phases: Iterable[str]) -> Iterator[Leaf]:
    """Yield the datasets of the phases' data loaders, inside their wrappers."""
    for phase, key, loader in loaders(cfg, phases):
        for leaf, settings in parts(loader['dataset'], f'{key}.dataset', names=WRAPPED):
            if not any(isinstance(settings.get(name), list | tuple | Mapping) for name in WRAPPED):
                yield Leaf(leaf, settings, phase, cfg.get('default_scope'))


def evaluators(cfg: Any, phases: Iterable[str]) -> Iterator[tuple[str, str, Any]]:
    """Yield phase, key and settings of the phases' metrics, and of their wrappers."""
    for phase in phases:
        for key, settings in parts(cfg.get(f'{phase}_evaluator'), f'{phase}_evaluator', names=('metrics',)):
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


def is_kind(registry: Any, settings: Any, scope: str | None, base: str) -> bool:
    """Return whether the class that ``settings`` would build, or one of its bases, is called ``base``."""
    kind = resolve(registry, settings.get('type'), scope)
    return any(cls.__name__ == base for cls in getattr(kind, '__mro__', ()))
