"""What comparisons of class lists find, and how it is told."""

import difflib
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from mmevm.engine.checks.datasets import Leaf

#: So many names are listed, and of more, how many.
LISTED = 10


@dataclass
class Report:
    """What a comparison found.

    Attributes:
        problems (list[str]): What has to be put right.
        notes (list[str]): What is to be known.
        wanted (tuple[str] | None): Class names that would fit the annotations, where the config's do not.
        count (int | None): The number of classes that the heads would need, where theirs is too low.
    """

    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    wanted: tuple[str, ...] | None = None
    count: int | None = None


class ClassList(NamedTuple):
    """The classes of one dataset.

    Attributes:
        leaf (Leaf): The dataset's settings.
        names (tuple[str] | None): As the config or the dataset's class has them.
        stated (bool): Whether it is the config.
        scope (str | None): The config's ``default_scope``.
        is_read (bool): Whether the format of its annotations is known.
        numbered (tuple[str] | None): As its annotations number them, where they do so by name.
        highest (int | None): The highest class id of its annotations, where they have ids.
        things (int | None): How many of a panoptic dataset's classes are objects, which come first.
        sampled (bool): Whether only some of them were read.
        source (str): Where that stands, or the annotation file.
    """

    leaf: Leaf
    names: tuple[str, ...] | None
    stated: bool = False
    scope: str | None = None
    is_read: bool = False
    numbered: tuple[str, ...] | None = None
    highest: int | None = None
    things: int | None = None
    sampled: bool = False
    source: str = ''

    @property
    def by_id(self) -> tuple[str, ...] | None:
        """Names by class id."""
        return self.numbered if self.numbered is not None else self.names


def listed(names: Iterable[Any]) -> str:
    """Names in quotes, not all of many."""
    names = [repr(str(name)) for name in names]
    rest = len(names) - LISTED
    return ', '.join(names[:LISTED]) + (f' and {rest} more' if rest > 0 else '')


def _plain(name: str) -> str:
    return re.sub(r'[\s_-]+', '', name).casefold()


def same_but_for_case(name: str, candidates: Iterable[str]) -> bool:
    """Whether a candidate differs in nothing but case, spaces, underscores and hyphens."""
    return _plain(name) in map(_plain, candidates)


def nearest(name: str, candidates: Iterable[str]) -> str | None:
    """The candidate spelt most like a name, if any is spelt nearly like it; case, spaces and hyphens count little."""
    plain = {_plain(candidate): candidate for candidate in candidates}
    close = difflib.get_close_matches(_plain(name), plain, n=1, cutoff=0.75)
    return plain[close[0]] if close else None


def differences(config: Sequence[str], found: Sequence[str], place: str) -> list[str]:
    """Lines that say which names of a config and of its annotations match and which do not."""
    both = [name for name in config if name in found]
    config_alone = [name for name in config if name not in found]
    found_alone = [name for name in found if name not in config]
    near = {name: close for name in config_alone if (close := nearest(name, found_alone))}
    # What has a neighbour comes first, lest it be among those not listed.
    config_alone.sort(key=lambda name: name not in near)
    told = [f'{name!r} ({place}: {near[name]!r})' if name in near else repr(name) for name in config_alone[:LISTED]]
    rest = len(config_alone) - len(told)
    lines = [
        f'  in both: {listed(both) or "none"}',
        f'  in the config alone: {", ".join(told) + (f" and {rest} more" if rest else "") or "none"}',
        f'  {place} alone: {listed(found_alone) or "none"}',
    ]
    return lines


def stated_fault(key: str, value: Any) -> str | None:
    """What is wrong with a list of class names in a config, or ``None``."""
    if isinstance(value, str):
        if '://' in value or os.path.isfile(os.path.expanduser(value)):
            return None
        names = tuple(part.strip() for part in value.split(',') if part.strip()) or ('name',)
        return (
            f'{key} is the string {value!r}, whose letters would pass for the names of classes. A tuple of '
            f'names{" needs a comma even for one" if len(names) == 1 else ""}: {names!r}; a string can only be the '
            'path of a file with a name in each line.'
        )
    if not isinstance(value, list | tuple):
        return f'{key} must be a list or tuple of names, got {value!r}'
    if not value:
        return f'{key} is empty'
    wrong = next((name for name in value if not isinstance(name, str)), None)
    return None if wrong is None else f'{key} must hold names, got {wrong!r}'
