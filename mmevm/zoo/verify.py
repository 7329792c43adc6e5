"""Whether a file is what its entry says: the same bytes, plain data, the named variant."""

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mmevm.checkpoint import formats
from mmevm.checkpoint.load import check_checkpoint
from mmevm.checkpoint.weights_only import CheckpointError, load_file
from mmevm.zoo.cache import file_hash
from mmevm.zoo.entries import Entry

_SIZE_TOLERANCE = 0.01  # the hub lists three digits


class BytesError(CheckpointError):
    """A file whose bytes are not those that its authors published; fetching it again may help."""


def check_bytes(path: Path, entry: Entry, expected: dict[str, str]) -> str:
    """Checks size, hash and, in zip files, checksums.

    Args:
        path (Path): A local file.
        entry (Entry): What it should be.
        expected (dict[str, str]): SHA-256 hashes it must have, by where they come from.

    Returns:
        str: Its SHA-256.

    Raises:
        BytesError: If anything differs.
    """
    size = path.stat().st_size
    if entry.size and abs(size - entry.size) > _SIZE_TOLERANCE * entry.size:
        raise BytesError(f'{path} has {size} bytes, expected about {entry.size}: it is cut off or another file')
    sha256 = file_hash(path)
    for origin, value in expected.items():
        if sha256 != value:
            raise BytesError(
                f'{path} has the SHA-256 {sha256}, expected {value} ({origin}): it was altered or replaced'
            )
    # torch leaves out the archive's own checksums when it reads.
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            try:
                broken = archive.testzip()
            except (zipfile.BadZipFile, OSError) as error:
                raise BytesError(f'{path} is damaged: {error}') from error
        if broken:
            raise BytesError(f'{path} is damaged: the checksum of {broken} in it is wrong')
    return sha256


def check_content(path: Path, entry: Entry) -> None:
    """Checks that a file opens as plain data and holds the weights of its entry.

    Raises:
        CheckpointError: If it asks for code, lacks the entry's key, or is another variant.
    """
    content = load_file(path)
    if not isinstance(content.get(entry.key), dict):
        raise CheckpointError(f'{path} has no `{entry.key}`, which holds the weights of {entry.name}; it has the keys '
                              f'{", ".join(map(str, list(content)[:8]))}')  # fmt: skip
    if entry.available:
        try:
            check_checkpoint(build_backbone(entry.architecture, entry.arch, entry.options), content[entry.key])
        except CheckpointError as error:
            raise CheckpointError(f'{path} is not {entry.name}: {error}') from error


def build_backbone(
    architecture: str, arch: str, options: dict[str, Any] | None = None, device: str = 'meta'
) -> nn.Module:
    """A backbone of mmevm; on the meta device it has shapes alone, and takes no time."""
    from mmevm import backbones

    with torch.device(device):
        return getattr(backbones, architecture)(arch, **(options or {}))


def architecture(content: Mapping[str, Any]) -> str | None:
    """Which backbone of mmevm the weights of a loaded file fit, such as 'EfficientVMamba tiny', or None."""
    from mmevm import backbones

    weights = formats.strip_prefix(formats.unwrap(content))
    below = {name.removeprefix('backbone.'): value for name, value in weights.items()}
    found = formats.signature(formats.convert(below))
    for name in backbones.__all__:
        for arch, parts in getattr(backbones, name).arch_zoo.items():
            # Different networks share widths and depths; the names of their parameters tell them apart.
            if found != (list(parts['dims']), list(parts['depths'])):
                continue
            try:
                check_checkpoint(build_backbone(name, arch), weights)
            except CheckpointError:
                continue
            return f'{name} {arch}'
    return None
