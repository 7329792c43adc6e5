"""Rewriting checkpoint files: upstream's spelling and mmevm's, ``torch.save``'s container and safetensors'."""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmevm.checkpoint import formats
from mmevm.checkpoint.identify import identify
from mmevm.checkpoint.names import backbone_prefixes, below, without_module
from mmevm.checkpoint.weights_only import CheckpointError, load_file
from mmevm.version import __version__
from mmevm.zoo.cache import file_hash
from mmevm.zoo.entries import find_entry
from mmevm.zoo.fetching import fetch

_LAYOUTS = {'mmevm': formats.convert, 'upstream': formats.to_upstream}
_MADE_BY = 'mmevm.zoo.convert'


@dataclass(frozen=True)
class ConvertReport:
    """What a conversion did.

    Attributes:
        tensors (int): How many tensors were written, bit for bit as they were.
        renamed (int): How many of them under another name.
        dropped (list[str]): What is no part of the chosen weights: top-level keys of the source, such as optimizer,
            epoch and moving averages, entries from beside a model below a framework's prefix, and Vim's ``pos_grid``,
            for which upstream's networks have no place.
        metadata (dict[str, str]): What the written file says about itself.
    """

    tensors: int
    renamed: int
    dropped: list[str]
    metadata: dict[str, str]


def convert(
    source: str | os.PathLike, target: str | os.PathLike, layout: str = 'mmevm', key: str | None = None
) -> ConvertReport:
    """Rewrites a checkpoint file, tensors bit for bit.

    A second conversion changes nothing, and the way back gives upstream's names again. What compilers, parallel
    wrappers and training frameworks put before names is removed. Files of other architectures keep their names; only
    the container changes.

    Args:
        source (path): A checkpoint file in any format that mmevm reads, or ``mmevm://NAME`` of the zoo.
        target (path): The file to write; ``.safetensors`` chooses that container, anything else ``torch.save``'s.
        layout (str): Whose parameter names: 'mmevm' or 'upstream'.
        key (str, optional): The top-level key to take, such as ``model_ema``; by default the trained weights.

    Returns:
        ConvertReport: What was written and what was not.

    Raises:
        ValueError: If ``layout`` is none of the two.
        FileNotFoundError: If there is no source.
        CheckpointError: If the source cannot be opened as plain data or has no weights under ``key``.
    """
    if layout not in _LAYOUTS:
        raise ValueError(f"`layout` must be 'mmevm' or 'upstream', got {layout!r}")
    path, origin = _locate(source)
    content = load_file(path)
    weights, left_out = _choose(content, key, path)
    names = _rename(weights, layout)
    left_out += [name for name in weights if name not in names]
    renamed = {new: weights[name] for name, new in names.items()}
    earlier = read_metadata(path, content)
    metadata = {
        'format': 'pt',
        'made_by': _MADE_BY,
        'mmevm_version': __version__,
        'layout': layout,
        'architecture': identify(weights) or earlier.get('architecture', 'unknown'),
        'source': earlier.get('source', origin),
        'source_sha256': earlier.get('source_sha256') or file_hash(path),
        'tensors_sha256': tensors_hash(renamed),
    }
    _write(Path(target).expanduser(), renamed, metadata)
    changed = sum(name != new for name, new in names.items())
    return ConvertReport(len(renamed), changed, left_out, metadata)


def read_metadata(path: str | os.PathLike, content: Mapping[str, Any]) -> dict[str, str]:
    """What a file that :func:`convert` wrote says about itself; empty for other files. ``content`` is what it holds."""
    if str(path).endswith('.safetensors'):
        from safetensors import safe_open

        with safe_open(path, 'pt') as file:
            metadata = file.metadata() or {}
    else:
        metadata = content.get('meta')
    return dict(metadata) if isinstance(metadata, dict) and metadata.get('made_by') == _MADE_BY else {}


def tensors_hash(weights: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, dtypes, shapes and values, whatever the container and the order."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        tensor = weights[name].detach().cpu().contiguous()
        digest.update(f'{name} {tensor.dtype} {list(tensor.shape)}\n'.encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _locate(source: str | os.PathLike) -> tuple[Path, str]:
    """The source's file, and what the metadata call it."""
    if str(source).startswith('mmevm://'):
        return fetch(str(source)), find_entry(str(source)).url
    path = Path(source).expanduser()
    return path, path.name


def _choose(content: Mapping[str, Any], key: str | None, path: Path) -> tuple[dict[str, Tensor], list[str]]:
    """The weights of a file, without wrappers' prefixes, and the other things in it."""
    if key is not None and not isinstance(content.get(key), Mapping):
        raise CheckpointError(f'{path} has no mapping under {key!r}; it has {", ".join(map(str, list(content)[:8]))}')
    chosen = content[key] if key else formats.unwrap(content)
    others = [str(name) for name, value in content.items() if value is not chosen] if chosen is not content else []
    if read_metadata(path, content):
        others = [name for name in others if name != 'meta']  # it is written anew
    weights, beside = _take_model(formats.strip_prefix(chosen))
    wrong = [name for name, value in weights.items() if not isinstance(value, Tensor)]
    if wrong or not weights:
        what = f'what is no tensor: {", ".join(map(str, wrong[:8]))}' if wrong else 'nothing'
        raise CheckpointError(
            f'{path} has {what} where its weights should be; `key` chooses one of '
            f'{", ".join(map(str, list(content)[:8]))}'
        )
    return weights, others + beside


def _take_model(weights: dict[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """The model around a backbone of mmevm without a framework's prefix, and the names of what lies beside it."""
    if any(prefix.endswith('backbone.module.') for prefix in backbone_prefixes(weights)):  # its parts are wrapped
        weights = {without_module(name): value for name, value in weights.items()}
    prefixes = backbone_prefixes(weights)
    if len(prefixes) != 1:
        return weights, []
    outer = prefixes[0].removesuffix('backbone.')
    return below(weights, outer), [name for name in weights if not name.startswith(outer)]


def _rename(weights: dict[str, Tensor], layout: str) -> dict[str, str]:
    """New names by those in ``weights``, for the backbones of mmevm, alone or as parts of a model; others stay."""
    names = dict(zip(weights, weights, strict=True))
    for prefix in backbone_prefixes(weights):
        inner = below(weights, prefix)
        if formats.signature(formats.convert(inner)) is not None:
            renamed = {prefix + name: prefix + new for new, name in _LAYOUTS[layout]({n: n for n in inner}).items()}
            names = {
                name: renamed.get(name, new)
                for name, new in names.items()
                if name in renamed or not name.startswith(prefix)
            }
    return names


def _write(target: Path, weights: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Writes beside ``target`` first, so that a broken run leaves no half file under its name."""
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.with_name(f'.{os.getpid()}.{target.name}')
    try:
        if target.suffix == '.safetensors':
            from safetensors.torch import save_file

            # safetensors takes neither strided views nor tensors that share memory.
            save_file({name: value.contiguous().clone() for name, value in weights.items()}, draft, metadata)
        else:
            torch.save({'state_dict': weights, 'meta': metadata}, draft)
        os.replace(draft, target)
    finally:
        draft.unlink(missing_ok=True)
