"""What mmevm changes in other libraries, or uses of what they keep private, where no public interface serves.

``_mim_data.py`` has one more, for setup.py, which runs before the package can be imported.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from inspect import signature
from typing import Any

from mmengine.config.utils import MODULE2PACKAGE
from mmengine.fileio.io import backend_instances
from mmengine.runner.base_loop import BaseLoop


def _distributed(package: str) -> bool:
    try:
        distribution(package)
    except PackageNotFoundError:
        return False
    return True


def _importable(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def find_configs_by_import_name() -> None:
    """Let ``_base_ = 'mmseg::…'`` and ``get_config('mmseg::…')`` find forks, and configs of mmevm.

    MMEngine looks a library up by the name of its distribution, ``mmsegmentation``, from a constant table; under a
    fork's name (``onedl-mmsegmentation``) it seems absent. For a name that no distribution has, MMEngine looks for a
    module of that name, so that the import name finds whatever can be imported.
    """
    for module, package in list(MODULE2PACKAGE.items()):
        if not _distributed(package) and _importable(module):
            MODULE2PACKAGE[module] = module
    MODULE2PACKAGE.setdefault('mmevm', 'mmevm')


def extend_init(cls: type, extend: Callable[[Callable[..., None]], Callable[..., None]]) -> None:
    """Replace ``cls.__init__`` by ``extend(cls.__init__)``, unless that has been done.

    MMEngine's and MMPretrain's inferencers resolve names and load weights in the ``__init__`` of their base classes,
    and users call the subclasses of each library by name.
    """
    init: Any = cls.__init__  # type: ignore[misc]
    if not hasattr(init, 'extended_by_mmevm'):
        extended = extend(init)
        vars(extended)['extended_by_mmevm'] = True
        setattr(cls, '__init__', extended)  # noqa: B010  mypy refuses to assign a method


def forget_file_backends() -> None:
    """Discard the file backends that MMEngine has built; it would keep using them after ``register_backend``."""
    backend_instances.clear()


def on_write_error(handler: logging.Handler, action: Callable[[], None]) -> None:
    """Call ``action`` where a log handler would print a traceback; MMEngine builds the handler itself."""
    handler.handleError = lambda record: action()  # type: ignore[method-assign]


@contextmanager
def frequent_writes() -> Iterator[dict[str, Any]]:
    """Let huggingface_hub's ``http_get`` write every MiB, and yield arguments that keep it from retrying by itself.

    A broken download continues from what was written, not from what was received, and 10 MB are the usual. Without the
    argument, in other releases, both sides retry, which takes longer and does no harm.
    """
    from huggingface_hub import constants
    from huggingface_hub.file_download import http_get

    usual, constants.DOWNLOAD_CHUNK_SIZE = constants.DOWNLOAD_CHUNK_SIZE, 1 << 20
    try:
        yield {'_nb_retries': 0} if '_nb_retries' in signature(http_get).parameters else {}
    finally:
        constants.DOWNLOAD_CHUNK_SIZE = usual


def is_training(runner: Any) -> bool:
    """Return whether a runner is about to train; the public ``train_loop`` would build the loop, with its dataset."""
    return isinstance(runner._train_loop, BaseLoop)
