"""The released checkpoints, read from ``released.yml``, their only source."""

import difflib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from mmevm.registry import BACKBONES
from mmevm.zoo.errors import NameUnknownError

_HUB = 'https://huggingface.co/'
_METRICS = {
    'classification': 'ImageNet-1k top-1, %',
    'detection': 'COCO box AP',
    'segmentation': 'ADE20K mIoU, %',
}


@dataclass(frozen=True)
class Family:
    """What checkpoints of one architecture have in common.

    Attributes:
        title (str): Title of the paper.
        paper (str): Its address.
        source (str): The authors' repository.
        licence (str): Of the weights, as the authors state it.
    """

    title: str
    paper: str
    source: str
    licence: str


@dataclass(frozen=True)
class Entry:
    """A released checkpoint.

    Attributes:
        name (str): What users call it; ``mmevm://NAME`` in configs.
        architecture (str): The backbone, a class of :mod:`mmevm.backbones` if mmevm has it.
        arch (str): Its variant.
        task (str): What the weights were trained for: 'classification', 'detection' or 'segmentation'.
        config (str): The config of mmevm that builds the whole model of the file.
        url (str): The address of the file, for files on the hub too.
        key (str): The top-level key of the weights.
        metric (str): Name of the metric.
        paper (float): The authors' figure of it. None of them has been measured again here.
        source (str): The authors' repository.
        licence (str): Licence of the weights, as the authors state it.
        results (str): All figures of the authors, ``paper`` first, separated by spaces.
        repo (str, optional): The repository on the Hugging Face hub, if the file is there.
        size (int, optional): Size in bytes, to the three digits that the hub lists.
        sha256 (str, optional): The file's hash, where its authors published one. Where they did not, the first verified
            download records it in the cache, and later ones are held to that.
        options (dict): Further arguments of the backbone that the weights are for.
    """

    name: str
    architecture: str
    arch: str
    task: str
    config: str
    url: str
    key: str
    metric: str
    paper: float
    source: str
    licence: str
    results: str = ''
    repo: str | None = None
    size: int | None = None
    sha256: str | None = None
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def file(self) -> str:
        """The file's name."""
        return self.url.rpartition('/')[2]

    @property
    def available(self) -> bool:
        """Whether mmevm has the backbone that these weights are for."""
        return self.architecture in BACKBONES

    @property
    def converted_from(self) -> str:
        """What the weights are made from: upstream's own file, converted when it is loaded."""
        return f'{self.source}: {self.url}'


_RELEASED: dict[str, Any] = yaml.safe_load(Path(__file__).with_name('released.yml').read_text(encoding='utf-8'))

FAMILIES: dict[str, Family] = {name: Family(**family) for name, family in _RELEASED['families'].items()}
"""The families of checkpoints by architecture."""


def _entry(checkpoint: dict[str, Any]) -> Entry:
    family, url = FAMILIES[checkpoint['architecture']], checkpoint['url']
    return Entry(
        **checkpoint,
        metric=_METRICS[checkpoint['task']],
        paper=float(checkpoint['results'].split()[0]),
        source=family.source,
        licence=family.licence,
        repo=url.removeprefix(_HUB).partition('/resolve/')[0] if url.startswith(_HUB) else None,
    )


ENTRIES: dict[str, Entry] = {entry.name: entry for entry in map(_entry, _RELEASED['checkpoints'])}
"""Every checkpoint of the zoo by name."""


def find_entry(name: str) -> Entry:
    """Return the entry of a name, with or without ``mmevm://``.

    Raises:
        TypeError: If it is no text.
        NameUnknownError: If there is none; names the most similar ones. It is a ``ValueError``.
    """
    if not isinstance(name, str):
        raise TypeError(f'expected the name of a checkpoint, such as {next(iter(ENTRIES))!r}, got {name!r}')
    name = name.removeprefix('mmevm://')
    if name in ENTRIES:
        return ENTRIES[name]
    close = difflib.get_close_matches(name.lower(), ENTRIES, cutoff=0.3) or list(ENTRIES)
    raise NameUnknownError(
        f'the zoo has no {name!r}; did you mean {", ".join(close)}? `python tools/zoo.py list` shows all'
    )
