"""Opening checkpoint files without running code from them.

``torch.load(weights_only=True)`` alone refuses MMEngine's own training checkpoints; :mod:`mmevm.checkpoint.unpickling`
has what they need besides tensors. MMEngine in its turn runs text that it finds in a checkpoint as a Python config:
its loaders get the content without any such text.
"""

import json
import os
import re
import shlex
import tarfile
import zipfile
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from mmevm.checkpoint.unpickling import LEFT_OUT, only_our_globals, resolve, rewrite


class CheckpointError(RuntimeError):
    """A checkpoint that cannot be opened as plain data; the message says why and what to do."""


def _refusal(path: str, name: str) -> str:
    # The command is quoted for the shell, whatever the name of the file.
    code = (
        f'import torch; c = torch.load({json.dumps(path)}, weights_only=False); '
        'torch.save({"state_dict": c.get("state_dict", c.get("model", c))}, "weights.pth")'
    )
    return (
        f'Refused to load {path}: it asks for `{name}`, and only tensors, plain containers, numpy numbers, '
        "argparse.Namespace and mmengine's log history are loaded from files, because anything else can run code. "
        'If, and only if, you trust its author, save its weights alone once and load that file instead: '
        f'python -c {shlex.quote(code)}'
    )


def _refuse_programs(path: str) -> None:
    """Refuse the two forms of file from which ``torch.load`` itself runs code, before 2.6 even with weights_only."""
    remedy = 'Save the weights of it as a state dict with torch.save, if you trust its author, and load that file.'
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if any(name.rpartition('/')[2] == 'constants.pkl' for name in archive.namelist()):
                raise CheckpointError(f'Refused to load {path}: it is a TorchScript program, which is code. {remedy}')
    try:
        with tarfile.open(path, 'r:') as archive:
            has_members = archive.next() is not None
    except tarfile.TarError:
        return
    if has_members:
        raise CheckpointError(
            f'Refused to load {path}: it is a tar archive, the form of the first PyTorch releases, '
            f'which cannot be opened as data only. {remedy}'
        )


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
        cause = f'it is not a {kind} file, or is cut off; check the path or download it again'
    detail = f'{type(error).__name__}: {error}'.splitlines()[0][:160]
    return f'Cannot read {path} ({size} bytes) as a checkpoint: {cause}. [{detail}]'


def _load_safetensors(path: str, map_location: Any) -> dict:
    """Return the tensors by name, or, of a file with a ``meta`` in its header, ``state_dict`` and ``meta``."""
    try:
        from safetensors import safe_open
    except ImportError as error:
        raise CheckpointError(f'Reading {path} needs the package safetensors: pip install safetensors') from error
    try:
        with safe_open(path, 'pt', device=str(map_location or 'cpu')) as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}
            meta = json.loads((file.metadata() or {}).get('meta', 'null'))
    except Exception as error:  # the package raises its own kinds for its own reasons
        raise CheckpointError(_unreadable(path, error)) from None
    return {'state_dict': tensors, 'meta': meta} if isinstance(meta, dict) else tensors


def save_safetensors(path: str | os.PathLike, weights: Mapping[str, Tensor], metadata: dict[str, str]) -> None:
    """Write weights by name, and text for the header, to a safetensors file."""
    from safetensors.torch import save_file

    # The container takes neither strided views nor tensors that share memory.
    save_file({name: value.contiguous().clone() for name, value in weights.items()}, path, metadata)


def _local_file(path: str | os.PathLike) -> str:
    """Return the absolute path of a file; errors as of :func:`load_file`."""
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f'expected the path of a checkpoint file, got {type(path).__name__}')
    if not os.fspath(path):
        raise FileNotFoundError('Checkpoint not found: the path is empty; give the path of a file')
    path = os.path.abspath(os.path.expanduser(os.fspath(path)))
    if os.path.isdir(path):
        raise CheckpointError(_no_file(path))
    if not os.path.isfile(path):
        raise FileNotFoundError(f'Checkpoint not found: {path}')
    if path.endswith('.index.json'):
        raise CheckpointError(f'Cannot read {path} as a checkpoint: {_SHARDED}')
    return path


_SHARDED = (
    'it lists the parts of a sharded checkpoint. Open each part with mmevm.checkpoint.load_file, merge what it returns '
    'into one dict, and load that, or save it with torch.save and load the file'
)


def _no_file(path: str) -> str:
    """Say what a folder has that could be loaded."""
    names = sorted(os.listdir(path))
    if '.metadata' in names:
        code = f'python -m torch.distributed.checkpoint.format_utils dcp_to_torch {shlex.quote(path)} weights.pth'
        return (
            f'{path} is a folder, a distributed checkpoint of PyTorch. If you trust it, as this runs what is pickled '
            f'in it, make one file of it, and load that: {code}'
        )
    index = next((name for name in names if name.endswith('.index.json')), None)
    if index:
        return f'{path} is a folder, and has {index}: {_SHARDED}'
    files = [name for name in names if name.endswith(('.safetensors', '.pth', '.pt', '.ckpt', '.bin'))]
    found = f'give the path of a file in it: {", ".join(files[:8])}' if files else 'it has no *.safetensors or *.pth'
    return f'{path} is a folder, expected a checkpoint file; {found}'


def load_file(path: str | os.PathLike, map_location: Any = 'cpu', mmap: bool = False) -> dict:
    """Open a checkpoint file (zip or older pickle form, or ``.safetensors``) as data only.

    Args:
        path (str | os.PathLike): A local file.
        map_location (Any): As in :func:`torch.load`.
        mmap (bool): As in :func:`torch.load`: tensors are read when they are used, and only from the zip form.

    Returns:
        dict: The content of the file, a mapping.

    Raises:
        TypeError: ``path`` is no path.
        FileNotFoundError: There is no file at ``path``.
        CheckpointError: It is a folder, or the file is damaged, not a checkpoint, or refers to something outside the
            allow-list. It is a ``RuntimeError``.
    """
    path = _local_file(path)
    if path.endswith('.safetensors'):
        return _load_safetensors(path, map_location)
    try:
        _refuse_programs(path)
        with only_our_globals():
            content: Any = torch.load(path, map_location=map_location, weights_only=True, mmap=mmap)
        content = resolve(content)
    except CheckpointError:
        raise
    except RecursionError as error:
        raise CheckpointError(f'Cannot read {path} as a checkpoint: {error}') from None
    except Exception as error:
        # A file that is not a checkpoint can raise anything; only a refused name is told apart.
        refused = re.search(r'GLOBAL (.*?[\w)])(?: was not an allowed| whose module|\n|$)', str(error))
        raise CheckpointError(_refusal(path, refused[1]) if refused else _unreadable(path, error)) from None
    if not isinstance(content, dict):
        raise CheckpointError(f'{path} must hold a mapping, a state dict or a checkpoint, got {type(content).__name__}')
    return content


def _load_for_mmengine(path: str, map_location: Any, folder: str | None = None) -> dict:
    """Open ``path`` for MMEngine, without entries that MMEngine would act on.

    ``Runner.resume`` and the inferencers run config text in it (``meta``, ``message_hub``) as Python. A resumed run
    deletes the previous best checkpoint, whatever path the file gives for it: only a path in the same folder is kept.
    """

    def entry(key: Any, item: Any) -> Any:
        name = key.decode('latin1') if isinstance(key, bytes) else key
        if not isinstance(name, str) or isinstance(item, Tensor):
            return item
        if 'cfg' in name.lower() or 'config' in name.lower():
            return LEFT_OUT
        if name.startswith('best_ckpt'):
            best = os.path.basename(item) if isinstance(item, str) else ''
            return os.path.join(folder, best) if folder and best.startswith('best_') else LEFT_OUT
        return item

    return rewrite(load_file(path, map_location), lambda value: value, entry)


def load_from_local(filename: str, map_location: Any = None) -> dict:
    """MMEngine loader for local paths; see :func:`load_file`."""
    path = os.path.expanduser(filename)
    return _load_for_mmengine(path, map_location, folder=os.path.dirname(path) or '.')


def load_from_http(
    filename: str, map_location: Any = None, model_dir: str | None = None, progress: bool = True
) -> dict:
    """MMEngine loader for addresses: download once into torch's hub folder, rank 0 first, then :func:`load_file`.

    Processes of other machines, which do not see the folder of rank 0, download for themselves.
    """
    from mmengine.dist import get_dist_info

    folder = model_dir or os.path.join(torch.hub.get_dir(), 'checkpoints')
    target = os.path.join(folder, os.path.basename(filename.split('?')[0]))
    rank, world_size = get_dist_info()

    def download() -> None:
        if not os.path.exists(target):
            os.makedirs(folder, exist_ok=True)
            digest = re.search(r'-([a-f0-9]{8,})\.', os.path.basename(target))
            torch.hub.download_url_to_file(filename, target, digest and digest[1], progress=progress)

    try:
        if rank == 0:
            download()
    finally:  # else the others would wait for a process that has failed
        if world_size > 1:
            torch.distributed.barrier()
    download()
    return _load_for_mmengine(target, map_location)


def load_from_storage(filename: str, map_location: Any = None) -> dict:
    """MMEngine loader for its object stores (``s3://``, ``petrel://``): a temporary copy, then :func:`load_file`."""
    from mmengine.fileio import get_local_path

    with get_local_path(filename) as path:
        return _load_for_mmengine(path, map_location)


def load_from_torchvision(filename: str, map_location: Any = None) -> dict:
    """MMEngine loader for ``torchvision://NAME``."""
    from mmengine.runner.checkpoint import get_torchvision_models

    return load_from_http(get_torchvision_models()[_name(filename)], map_location)


def load_from_openmmlab(filename: str, map_location: Any = None) -> dict:
    """MMEngine loader for ``open-mmlab://NAME``: an address, or a file in MMEngine's folder."""
    from mmengine.runner.checkpoint import _get_mmengine_home, get_deprecated_model_names, get_external_models

    name = get_deprecated_model_names().get(_name(filename), _name(filename))
    source = get_external_models()[name]
    if source.startswith(('http://', 'https://')):
        return load_from_http(source, map_location)
    return load_from_local(os.path.join(_get_mmengine_home(), source), map_location)


def load_from_mmcls(filename: str, map_location: Any = None) -> dict:
    """MMEngine loader for ``mmcls://NAME``, of which it takes the backbone."""
    from mmengine.runner.checkpoint import get_mmcls_models

    content = load_from_http(get_mmcls_models()[_name(filename)], map_location)
    weights = content.get('state_dict', content)
    return {'state_dict': {name[9:]: value for name, value in weights.items() if name.startswith('backbone.')}}


def load_from_pavi(filename: str, map_location: Any = None) -> dict:
    """MMEngine loader for ``pavi://``, which is refused."""
    raise CheckpointError(f'{filename} cannot be opened as data only: download the file and give its path')


def _name(filename: str) -> str:
    return filename.partition('://')[2]


def register_weights_only_loader() -> None:
    """Make every checkpoint that MMEngine opens in this process go through :func:`load_file`.

    Without it OpenMMLab's MMEngine cannot open its own training checkpoints under torch >= 2.6, and the maintained
    fork falls back to unpickling whatever was refused. ``tools/train.py`` and ``tools/test.py`` call it; importing
    mmevm does not.
    """
    from mmengine.runner import CheckpointLoader

    loaders = {
        load_from_local: '',
        load_from_http: ('http://', 'https://'),
        load_from_storage: (r'(\S+\:)?s3://', r'(\S+\:)?petrel://'),
        load_from_torchvision: ('torchvision://', 'modelzoo://'),
        load_from_openmmlab: ('open-mmlab://', 'openmmlab://'),
        load_from_mmcls: 'mmcls://',
        load_from_pavi: 'pavi://',
    }
    for loader, prefixes in loaders.items():
        CheckpointLoader.register_scheme(prefixes=prefixes, loader=loader, force=True)
