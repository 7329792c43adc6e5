"""What a pickle in a checkpoint may refer to: inert stand-ins, from which real objects are built afterwards.

MMEngine's own training checkpoints carry a log history (``HistoryBuffer``, numpy arrays, bound methods pickled through
``getattr``), which ``torch.load(weights_only=True)`` refuses. Allow-listing the real classes would open holes:
``getattr`` reaches anything, and numpy's own ``__setstate__`` trusts raw bytes to be object pointers. The names are
therefore mapped to stand-ins that only record the content of the file; real arrays and histories are checked and built
after unpickling. The mechanism (a stand-in with the pickled name) works in every torch from 2.4 on.
"""

import argparse
import pickle
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

LEFT_OUT = object()
"""What ``entry`` of :func:`rewrite` returns for an entry that is to be removed."""

_MAX_DEPTH = 100
_STATISTICS = ('min', 'max', 'current', 'mean')
_DTYPE_CODE = re.compile(r'b1|[iu][1248]|f[248]|c(8|16)|[SU]\d{1,4}')
_HISTORY = 'mmengine.logging.history_buffer.HistoryBuffer'


class Refused(pickle.UnpicklingError):
    """A name or value that the allow-list does not cover; the message has torch's form ``GLOBAL <name> …``."""


class _Dtype:
    """Stands in for ``numpy.dtype``: a plain number or string type, never one with fields or objects."""

    def __init__(self, code: str = '', align: bool = False, copy: bool = False) -> None:
        if not (isinstance(code, str) and _DTYPE_CODE.fullmatch(code)):
            raise Refused(f'GLOBAL numpy.dtype({code!r}) is not a plain number or string type')
        self.real = np.dtype(code)

    def __setstate__(self, state: tuple) -> None:
        _, order, subarray, names, fields = state[:5]
        if order not in ('<', '>', '|', '=') or not (subarray is names is fields is None):
            raise Refused(f'GLOBAL numpy.dtype with state {state!r} is not a plain number or string type')
        self.real = self.real.newbyteorder(order)


class _Array:
    """Stands in for ``numpy.ndarray``; holds nothing until its state, bytes of a plain dtype, has been checked."""

    real: np.ndarray | None = None

    def __setstate__(self, state: tuple) -> None:
        _, shape, dtype, is_fortran, data = state
        if type(dtype) is not _Dtype or not isinstance(data, bytes):
            raise Refused('GLOBAL numpy.ndarray of Python objects')
        flat = np.frombuffer(data, dtype.real)
        self.real = flat.reshape(shape, order='F' if is_fortran else 'C').copy()


class _History:
    """Stands in for MMEngine's ``HistoryBuffer``, whose own ``__setstate__`` would write to the class."""

    def __setstate__(self, state: dict) -> None:
        self.state = state

    def build(self) -> Any:
        """Make the real ``HistoryBuffer`` from its two arrays; its statistics methods are always MMEngine's own."""
        from mmengine.logging import HistoryBuffer

        logs, counts = _real(self.state['_log_history']), _real(self.state['_count_history'])
        return HistoryBuffer(logs, counts, int(self.state['max_length']))


def _reconstruct(cls: type, shape: tuple, code: bytes) -> _Array:
    if cls is not _Array:
        raise Refused(f'GLOBAL numpy _reconstruct of {cls!r}')
    return _Array()


def _scalar(dtype: _Dtype, data: bytes) -> Any:
    if type(dtype) is not _Dtype or not isinstance(data, bytes):
        raise Refused('GLOBAL numpy scalar of a Python object')
    return np.frombuffer(data, dtype.real, count=1)[0]


def _encode(text: str, encoding: str = 'latin1') -> bytes:
    # Protocol 2 spells bytes as text; torch < 2.5 does not allow-list it by itself.
    if encoding != 'latin1':
        raise Refused(f'GLOBAL _codecs.encode with {encoding!r}')
    return text.encode('latin1')


def _empty_bytes() -> bytes:
    # Protocol 2 spells empty bytes, which an empty array holds, as a call without arguments.
    return b''


def _getattr(owner: Any, name: str) -> str:
    # The value is dropped again when a history is built, so that not even the method itself has to be handed out.
    if owner is not _History or name not in _STATISTICS:
        raise Refused(f'GLOBAL getattr({getattr(owner, "__qualname__", owner)}, {name!r})')
    return name


def _named(stand_in: Callable, full_name: str) -> Callable:
    """Give ``stand_in`` (a class, or a copy of a function) the name by which torch's allow-list finds it."""
    if not isinstance(stand_in, type):
        function = stand_in

        def stand_in(*args: Any) -> Any:
            return function(*args)

    stand_in.__module__, stand_in.__name__ = full_name.rsplit('.', 1)
    stand_in.__qualname__ = stand_in.__name__
    return stand_in


def _real(value: Any) -> Any:
    """Return the object that a stand-in stands for; any other value is returned as it is."""
    if isinstance(value, _Array | _Dtype):
        return value.real
    return value.build() if isinstance(value, _History) else value


# numpy 2 moved `numpy.core` to `numpy._core`; files have either.
_ALLOWED = [
    argparse.Namespace,
    _named(_History, _HISTORY),
    _named(_Dtype, 'numpy.dtype'),
    _named(_Array, 'numpy.ndarray'),
    _named(_encode, '_codecs.encode'),
    _named(_empty_bytes, 'builtins.bytes'),
    _named(_getattr, 'builtins.getattr'),
    *(_named(_reconstruct, f'numpy.{core}.multiarray._reconstruct') for core in ('core', '_core')),
    *(_named(_scalar, f'numpy.{core}.multiarray.scalar') for core in ('core', '_core')),
]


_TORCHS_LIST = threading.Lock()


@contextmanager
def only_our_globals() -> Iterator[None]:
    """Replace torch's safe globals, including those that others have registered, by our list.

    The list is global to the process, so one thread at a time may replace it.
    """
    with _TORCHS_LIST:
        registered = list(torch.serialization.get_safe_globals())
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(list(_ALLOWED))
        try:
            yield
        finally:
            torch.serialization.clear_safe_globals()
            torch.serialization.add_safe_globals(registered)


def resolve(content: Any) -> Any:
    """Replace the stand-ins inside containers by real numpy and MMEngine objects."""
    return rewrite(content, _real, lambda key, item: item)


def rewrite(content: Any, value: Callable[[Any], Any], entry: Callable[[Any, Any], Any]) -> Any:
    """Rewrite the content of nested containers, in place where they are mutable.

    Every object is visited once, so shared and cyclic structures are handled.

    Args:
        content (Any): The unpickled object.
        value (Callable): Maps an object that is not a container to its replacement.
        entry (Callable): Maps key and item of a mapping, or of a namespace, to the item to continue with, or to
            :data:`LEFT_OUT`.

    Returns:
        Any: ``content``, or its replacement.

    Raises:
        RecursionError: If containers are nested more than 100 deep.
    """
    visited: dict[int, tuple[Any, Any]] = {}  # with the object itself, so that its id is not reused

    def visit(item: Any, depth: int) -> Any:
        if id(item) in visited:
            return visited[id(item)][1]
        if depth > _MAX_DEPTH:
            raise RecursionError(f'containers are nested more than {_MAX_DEPTH} deep')
        visited[id(item)] = item, item
        if isinstance(item, argparse.Namespace):
            visit(vars(item), depth + 1)
        elif isinstance(item, dict):
            for key in list(item):
                taken = entry(key, item[key])
                if taken is LEFT_OUT:
                    del item[key]
                else:
                    item[key] = visit(taken, depth + 1)
        elif isinstance(item, list):
            item[:] = [visit(element, depth + 1) for element in item]
        elif type(item) is tuple:
            visited[id(item)] = item, tuple(visit(element, depth + 1) for element in item)
        else:
            visited[id(item)] = item, value(item)
        return visited[id(item)][1]

    return visit(content, 0)
