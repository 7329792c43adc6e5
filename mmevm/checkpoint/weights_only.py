"""Opening checkpoint files without running code from them.

``torch.load(weights_only=True)`` alone refuses MMEngine's own training checkpoints, because they carry a log history
(``HistoryBuffer``, numpy arrays, bound methods pickled through ``getattr``). Allow-listing the real classes would open
holes: ``getattr`` reaches anything, and numpy's own ``__setstate__`` trusts raw bytes to be object pointers. The names
are therefore mapped to inert stand-ins that only record what the file says; real arrays and histories are built, and
checked, after unpickling. The mechanism (a stand-in that bears the pickled name) works in every torch from 2.4 on.
"""

import argparse
import os
import pickle
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

_STATISTICS = ('min', 'max', 'current', 'mean')
_DTYPE_CODE = re.compile(r'b1|[iu][1248]|f[248]|c(8|16)|[SU]\d{1,4}')
_HISTORY = 'mmengine.logging.history_buffer.HistoryBuffer'


class CheckpointError(RuntimeError):
    """A checkpoint that cannot be opened as plain data; the message says why and what to do."""


class _Refused(pickle.UnpicklingError):
    """A name or value that the allow-list does not cover; the message has torch's form ``GLOBAL <name> …``."""


class _Dtype:
    """Stands in for ``numpy.dtype``: a plain number or string type, never one with fields or objects."""

    def __init__(self, code: str = '', align: bool = False, copy: bool = False) -> None:
        if not (isinstance(code, str) and _DTYPE_CODE.fullmatch(code)):
            raise _Refused(f'GLOBAL numpy.dtype({code!r}) is not a plain number or string type')
        self.real = np.dtype(code)

    def __setstate__(self, state: tuple) -> None:
        _, order, subarray, names, fields = state[:5]
        if order not in ('<', '>', '|', '=') or not (subarray is names is fields is None):
            raise _Refused(f'GLOBAL numpy.dtype with state {state!r} is not a plain number or string type')
        self.real = self.real.newbyteorder(order)


class _Array:
    """Stands in for ``numpy.ndarray``; holds nothing until its state, bytes of a plain dtype, has been checked."""

    real: np.ndarray | None = None

    def __setstate__(self, state: tuple) -> None:
        _, shape, dtype, is_fortran, data = state
        if type(dtype) is not _Dtype or not isinstance(data, bytes):
            raise _Refused('GLOBAL numpy.ndarray of Python objects')
        flat = np.frombuffer(data, dtype.real)
        self.real = flat.reshape(shape, order='F' if is_fortran else 'C').copy()


class _History:
    """Stands in for MMEngine's ``HistoryBuffer``, whose own ``__setstate__`` would write to the class."""

    def __setstate__(self, state: dict) -> None:
        self.state = state

    def build(self) -> Any:
        """Make the real ``HistoryBuffer`` from its two arrays; its statistics methods are always MMEngine's own."""
        from mmengine.logging import HistoryBuffer
        logs, counts = _resolve(self.state['_log_history']), _resolve(self.state['_count_history'])
        return HistoryBuffer(logs, counts, int(self.state['max_length']))


def _reconstruct(cls: type, shape: tuple, code: bytes) -> _Array:
    if cls is not _Array:
        raise _Refused(f'GLOBAL numpy _reconstruct of {cls!r}')
    return _Array()


def _scalar(dtype: _Dtype, data: bytes) -> Any:
    if type(dtype) is not _Dtype or not isinstance(data, bytes):
        raise _Refused('GLOBAL numpy scalar of a Python object')
    return np.frombuffer(data, dtype.real, count=1)[0]


def _encode(text: str, encoding: str = 'latin1') -> bytes:
    # Protocol 2 spells bytes as text; torch < 2.5 does not allow-list it by itself.
    if encoding != 'latin1':
        raise _Refused(f'GLOBAL _codecs.encode with {encoding!r}')
    return text.encode('latin1')


def _empty_bytes() -> bytes:
    # Protocol 2 spells empty bytes, which an empty array holds, as a call without arguments.
    return b''


def _getattr(owner: Any, name: str) -> str:
    # The value is dropped again when a history is built, so that not even the method itself has to be handed out.
    if owner is not _History or name not in _STATISTICS:
        raise _Refused(f'GLOBAL getattr({getattr(owner, "__qualname__", owner)}, {name!r})')
    return name


def _named(stand_in: Callable, full_name: str) -> Callable:
    """Give ``stand_in`` (a class, or a copy of a function) the name under which torch's allow-list keeps it."""
    if not isinstance(stand_in, type):
        function = stand_in

        def stand_in(*args: Any) -> Any:
            return function(*args)

    stand_in.__module__, stand_in.__name__ = full_name.rsplit('.', 1)
    stand_in.__qualname__ = stand_in.__name__
    return stand_in


# numpy 2 moved `numpy.core` to `numpy._core`; files of both ages are about.
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


@contextmanager
def _only_our_globals() -> Iterator[None]:
    """Put our list, and nothing that others may have registered, in torch's place for safe globals."""
    registered = list(torch.serialization.get_safe_globals())
    torch.serialization.clear_safe_globals()
    torch.serialization.add_safe_globals(list(_ALLOWED))
    try:
        yield
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(registered)


def _resolve(value: Any) -> Any:
    """Replace the stand-ins inside containers by real numpy and MMEngine objects."""
    if isinstance(value, _Array | _Dtype):
        return value.real
    if isinstance(value, _History):
        return value.build()
    if isinstance(value, argparse.Namespace):
        vars(value).update(_resolve(vars(value)))
    elif isinstance(value, dict):
        # Not `update`, which adds to a Counter: schedules keep their milestones in one.
        for key, item in value.items():
            value[key] = _resolve(item)
    elif isinstance(value, list):
        value[:] = [_resolve(item) for item in value]
    elif type(value) is tuple:
        return tuple(_resolve(item) for item in value)
    return value


def _refusal(path: str, name: str) -> str:
    return (f'Refused to load {path}: it asks for `{name}`, and only tensors, plain containers, numpy numbers, '
            "argparse.Namespace and mmengine's log history are loaded from files, because anything else can run code. "
            'If, and only if, you trust its author, save its weights alone once and load that file instead: '
            f'python -c "import torch; c = torch.load({path!r}, weights_only=False); '
            'torch.save({\'state_dict\': c.get(\'state_dict\', c.get(\'model\', c))}, \'weights.pth\')"')


def _unreadable(path: str, error: Exception) -> str:
    with open(path, 'rb') as file:
        head = file.read(64)
    size = os.path.getsize(path)
    if not head:
        cause = 'the file is empty'
    elif head.startswith(b'version https://git-lfs'):
        cause = 'it is a Git LFS pointer; fetch the file itself with `git lfs pull`'
    elif head.lstrip()[:1] == b'<':
        cause = 'it is a web page; the download went to a page instead of the file'
    elif head.startswith(b'PK'):
        cause = 'the archive is damaged or cut off; download or copy it again'
    else:
        kind = 'safetensors' if path.endswith('.safetensors') else 'torch.save'
        cause = f'it is no file that {kind} wrote, or it is cut off; check the path or download it again'
    detail = f'{type(error).__name__}: {error}'.splitlines()[0][:160]
    return f'Cannot read {path} ({size} bytes) as a checkpoint: {cause}. [{detail}]'


def _load_safetensors(path: str, map_location: Any) -> dict:
    try:
        from safetensors.torch import load_file as load_safetensors
    except ImportError as error:
        raise CheckpointError(f'Reading {path} needs the package safetensors: pip install safetensors') from error
    try:
        return load_safetensors(path, device=str(map_location or 'cpu'))
    except Exception as error:  # the package raises its own kinds for its own reasons
        raise CheckpointError(_unreadable(path, error)) from None


def load_file(path: str | os.PathLike, map_location: Any = 'cpu', mmap: bool = False) -> dict:
    """Open a checkpoint file (zip or older pickle form, or ``.safetensors``) as data only.

    Args:
        path (str | os.PathLike): A local file.
        map_location (Any): As in :func:`torch.load`.
        mmap (bool): As in :func:`torch.load`: tensors are read when they are used, and only from the zip form.

    Returns:
        dict: What the file holds, at its top level a mapping.

    Raises:
        FileNotFoundError: No file lies at ``path``.
        CheckpointError: The file is damaged, is no checkpoint, or asks for something outside the allow-list. It is a
            ``RuntimeError``.
    """
    path = os.path.abspath(os.path.expanduser(os.fspath(path)))
    if not os.path.isfile(path):
        raise FileNotFoundError(f'Checkpoint not found: {path}')
    if path.endswith('.safetensors'):
        return _load_safetensors(path, map_location)
    try:
        with _only_our_globals():
            content = torch.load(path, map_location=map_location, weights_only=True, mmap=mmap)
        content = _resolve(content)
    except Exception as error:
        # Any exception can come out of a file that is not a checkpoint; a refused name is the one to tell apart.
        refused = re.search(r'GLOBAL (.*?[\w)])(?: was not an allowed| whose module|\n|$)', str(error))
        raise CheckpointError(_refusal(path, refused[1]) if refused else _unreadable(path, error)) from None
    if not isinstance(content, Mapping):
        raise CheckpointError(f'{path} must hold a mapping, a state dict or a checkpoint, got {type(content).__name__}')
    return content


def _load_for_mmengine(path: str, map_location: Any) -> dict:
    """Open ``path`` for MMEngine, without the config text that ``Runner.resume`` would execute as Python."""
    content = load_file(path, map_location)
    if isinstance(content.get('meta'), dict):
        content['meta'].pop('config', None)
    return content


def load_from_local(filename: str, map_location: Any = None) -> dict:
    """MMEngine loader for local paths; see :func:`load_file`."""
    return _load_for_mmengine(filename, map_location)


def load_from_http(filename: str, map_location: Any = None, model_dir: str | None = None,
                   progress: bool = True) -> dict:
    """MMEngine loader for addresses: download once into torch's hub folder, rank 0 first, then :func:`load_file`."""
    from mmengine.dist import get_dist_info
    folder = model_dir or os.path.join(torch.hub.get_dir(), 'checkpoints')
    target = os.path.join(folder, os.path.basename(filename.split('?')[0]))
    rank, world_size = get_dist_info()
    if rank == 0 and not os.path.exists(target):
        os.makedirs(folder, exist_ok=True)
        digest = re.search(r'-([a-f0-9]{8,})\.', os.path.basename(target))
        torch.hub.download_url_to_file(filename, target, digest and digest[1], progress=progress)
    if world_size > 1:
        torch.distributed.barrier()
    return _load_for_mmengine(target, map_location)


def load_from_storage(filename: str, map_location: Any = None) -> dict:
    """MMEngine loader for its object stores (``s3://``, ``petrel://``): a temporary copy, then :func:`load_file`."""
    from mmengine.fileio import get_local_path
    with get_local_path(filename) as path:
        return _load_for_mmengine(path, map_location)


def register_weights_only_loader() -> None:
    """Make every checkpoint that MMEngine opens in this process go through :func:`load_file`.

    Without it OpenMMLab's MMEngine cannot open its own training checkpoints under torch >= 2.6, and the maintained
    fork falls back to unpickling whatever was refused. ``tools/train.py`` and ``tools/test.py`` call it; importing
    mmevm does not.
    """
    from mmengine.runner import checkpoint as mmengine_checkpoint
    loader = mmengine_checkpoint.CheckpointLoader
    loader.register_scheme(prefixes='', loader=load_from_local, force=True)
    loader.register_scheme(prefixes=('http://', 'https://'), loader=load_from_http, force=True)
    loader.register_scheme(
        prefixes=[r'(\S+\:)?s3://', r'(\S+\:)?petrel://'], loader=load_from_storage, force=True)
    # `torchvision://`, `open-mmlab://` and `mmcls://` look an address up and then call this function by its name.
    mmengine_checkpoint.load_from_http = load_from_http
