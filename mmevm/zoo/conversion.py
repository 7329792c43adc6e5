"""Converting checkpoint files: between upstream's names and mmevm's, and between ``torch.save`` and safetensors."""

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
from mmevm.checkpoint.weights_only import CheckpointError, load_file, save_safetensors
from mmevm.files import file_hash, replacing
from mmevm.version import __version__
from mmevm.zoo.entries import find_entry
from mmevm.zoo.fetching import fetch

_LAYOUTS = {'mmevm': formats.convert, 'upstream': formats.to_upstream}
_MADE_BY = 'mmevm.zoo.convert'


@dataclass(frozen=True)
class ConvertReport:
    """What a conversion did.

    Attributes:
        tensors (int): Number of tensors written, bit for bit as they were.
        renamed (int): Number of those with another name.
        dropped (list[str]): What does not belong to the chosen weights: top-level keys of the source, such as
            optimizer, epoch and moving averages, entries outside the model, and Vim's ``pos_grid``, which upstream's
            networks do not have.
        metadata (dict[str, str]): The metadata of the written file.
    """

    tensors: int
    renamed: int
    dropped: list[str]
    metadata: dict[str, str]


def convert(
    source: str | os.PathLike, target: str | os.PathLike, layout: str = 'mmevm', key: str | None = None
) -> ConvertReport:
    """Convert a checkpoint file, tensors bit for bit.

    The conversion is idempotent, and converting back restores upstream's names. Prefixes of compilers, parallel
    wrappers and training frameworks are removed. Files of other architectures keep their names; only the container
    changes.

    Args:
        source (path): A checkpoint file in any format that mmevm reads, or ``mmevm://NAME`` of the zoo.
        target (path): The file to write; ``.safetensors`` chooses that container, anything else ``torch.save``'s.
        layout (str): Whose parameter names: 'mmevm' or 'upstream'.
        key (str, optional): The top-level key to take, such as ``model_ema``; by default the trained weights.

    Returns:
        ConvertReport: What was written and what was left out.

    Raises:
        ValueError: If ``layout`` is unknown.
        FileNotFoundError: If the source does not exist.
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
    """Return the metadata of a file that :func:`convert` wrote; empty for other files. ``content`` is what it holds."""
    if str(path).endswith('.safetensors'):
        from safetensors import safe_open

        with safe_open(path, 'pt') as file:
            metadata = file.metadata() or {}
    else:
        metadata = content.get('meta')
    return dict(metadata) if isinstance(metadata, dict) and metadata.get('made_by') == _MADE_BY else {}


def tensors_hash(weights: Mapping[str, Tensor]) -> str:
    """Return a SHA-256 of names, dtypes, shapes and values that does not depend on container and order."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        tensor = weights[name].detach().cpu().contiguous()
        digest.update(f'{name} {tensor.dtype} {list(tensor.shape)}\n'.encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _locate(source: str | os.PathLike) -> tuple[Path, str]:
    """Return the file of a source, and its name in the metadata."""
    if str(source).startswith('mmevm://'):
        return fetch(str(source)), find_entry(str(source)).url
    path = Path(source).expanduser()
    return path, path.name


def _choose(content: Mapping[str, Any], key: str | None, path: Path) -> tuple[dict[str, Tensor], list[str]]:
    """Return the weights of a file, without wrappers' prefixes, and the names of everything else in it."""
    if key is not None and not isinstance(content.get(key), Mapping):
        raise CheckpointError(f'{path} has no mapping under {key!r}; it has {", ".join(map(str, list(content)[:8]))}')
    chosen = content[key] if key else formats.unwrap(content)
    others = [str(name) for name, value in content.items() if value is not chosen] if chosen is not content else []
    if read_metadata(path, content):
        others = [name for name in others if name != 'meta']  # it is written again
    weights, outside = _take_model(formats.strip_prefix(chosen))
    wrong = [name for name, value in weights.items() if not isinstance(value, Tensor)]
    if wrong or not weights:
        what = f'what is no tensor: {", ".join(map(str, wrong[:8]))}' if wrong else 'nothing'
        raise CheckpointError(
            f'{path} has {what} where its weights should be; `key` chooses one of '
            f'{", ".join(map(str, list(content)[:8]))}'
        )
    return weights, others + outside


def _take_model(weights: dict[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Return the model around a backbone of mmevm, without a framework's prefix, and the names outside of the model."""
    if any(prefix.endswith('backbone.module.') for prefix in backbone_prefixes(weights)):  # its parts are wrapped
        weights = {without_module(name): value for name, value in weights.items()}
    prefixes = backbone_prefixes(weights)
    if len(prefixes) != 1:
        return weights, []
    outer = prefixes[0].removesuffix('backbone.')
    return below(weights, outer), [name for name in weights if not name.startswith(outer)]


def _rename(weights: dict[str, Tensor], layout: str) -> dict[str, str]:
    """Return the new name of each entry; only backbones of mmevm, alone or in a model, are renamed."""
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
    with replacing(target) as draft:
        if target.suffix == '.safetensors':
            save_safetensors(draft, weights, metadata)
        else:
            torch.save({'state_dict': weights, 'meta': metadata}, draft)
