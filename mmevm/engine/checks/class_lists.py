"""The classes of datasets as their settings name them, and reports of how class lists differ."""

import difflib
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from mmevm.engine.checks.datasets import Leaf, leaves

#: How many names a message lists.
LISTED = 10


@dataclass
class Report:
    """The result of a comparison.

    Attributes:
        problems (list[str]): Errors.
        notes (list[str]): Warnings.
        wanted (tuple[str] | None): Class names that would fit the annotations, where the config's do not.
        count (int | None): The number of classes that the heads need, where theirs is too low.
    """

    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    wanted: tuple[str, ...] | None = None
    count: int | None = None


class ClassList(NamedTuple):
    """The classes of one dataset.

    Attributes:
        leaf (Leaf): The dataset's settings.
        names (tuple[str] | None): As the config or the dataset's class lists them.
        stated (bool): Whether the config lists them.
        dataset (BaseDataset | None): The dataset without its annotations, if it is one of MMEngine's.
        is_read (bool): Whether the format of its annotations is known.
        numbered (tuple[str] | None): As its annotations number them, where they do so by name.
        highest (int | None): The highest class id of its annotations, where they have ids.
        things (int | None): How many of a panoptic dataset's classes are objects, which come first.
        sampled (bool): Whether only some annotations were read.
        source (str): Where the highest id was found, or the annotation file.
    """

    leaf: Leaf
    names: tuple[str, ...] | None
    stated: bool = False
    dataset: Any = None
    is_read: bool = False
    numbered: tuple[str, ...] | None = None
    highest: int | None = None
    things: int | None = None
    sampled: bool = False
    source: str = ''

    @property
    def by_id(self) -> tuple[str, ...]:
        """Names by class id."""
        return (self.names if self.numbered is None else self.numbered) or ()


def quoted(names: Iterable[Any], default: str = '') -> str:
    """Return names in quotes, the first :data:`LISTED` of them, or ``default`` without any."""
    return listed([repr(str(name)) for name in names]) or default


def listed(items: Sequence[str], separator: str = ', ', last: str = ' and {} more') -> str:
    """Join the first :data:`LISTED` items, and state how many more there are."""
    more = len(items) - LISTED
    return separator.join(items[:LISTED]) + (last.format(more) if more > 0 else '')


def _plain(name: str) -> str:
    return re.sub(r'[\s_-]+', '', name).casefold()


def same_but_for_case(name: str, candidates: Iterable[str]) -> bool:
    """Return whether a candidate differs only in case, spaces, underscores and hyphens."""
    return _plain(name) in map(_plain, candidates)


def nearest(name: str, candidates: Iterable[str]) -> str | None:
    """Return the candidate most similar to a name, if any is similar; case, spaces and hyphens are ignored."""
    plain = {_plain(candidate): candidate for candidate in candidates}
    close = difflib.get_close_matches(_plain(name), plain, n=1, cutoff=0.75)
    return plain[close[0]] if close else None


def hint(name: str, candidates: Iterable[str], where: str) -> str:
    """Return `` (where: 'candidate')`` with the candidate most similar to a name, or nothing if none is similar."""
    close = nearest(name, candidates)
    return f' ({where}: {close!r})' if close else ''


def differences(config: Sequence[str], found: Sequence[str], where: str) -> list[str]:
    """Return lines that say which names of a config and of its annotations match and which do not."""
    config_only = [name for name in config if name not in found]
    found_only = [name for name in found if name not in config]
    hints = {name: hint(name, found_only, where) for name in config_only}
    # Misspelt names come first, so that they are among those listed.
    config_only.sort(key=lambda name: not hints[name])
    items = [f'{name!r}{hints[name]}' for name in config_only]
    return [
        f'  in both: {quoted((name for name in config if name in found), "none")}',
        f'  in the config alone: {listed(items) or "none"}',
        f'  {where} alone: {quoted(found_only, "none")}',
    ]


def stated_fault(key: str, value: Any) -> str | None:
    """Return what is wrong with a list of class names in a config, or ``None``."""
    if isinstance(value, str):
        if '://' in value or os.path.isfile(os.path.expanduser(value)):
            return None
        names = tuple(part.strip() for part in value.split(',') if part.strip()) or ('name',)
        return (
            f'{key} is the string {value!r}, each letter of which would be a class. A tuple of '
            f'names{" needs a comma even for one" if len(names) == 1 else ""}: {names!r}; a string can only be the '
            'path of a file with one name per line.'
        )
    if not isinstance(value, list | tuple):
        return f'{key} must be a list or tuple of names, got {value!r}'
    if not value:
        return f'{key} is empty'
    wrong = next((name for name in value if not isinstance(name, str)), None)
    return None if wrong is None else f'{key} must hold names, got {wrong!r}'


def stated_classes(leaf: Leaf) -> tuple[str, Any]:
    """Return the key and the value of the setting that names a dataset's classes; ``None`` for its class's own."""
    metainfo = leaf.settings.get('metainfo') or {}
    if isinstance(metainfo, Mapping) and metainfo.get('classes') is not None:
        return f'{leaf.key}.metainfo.classes', metainfo['classes']
    return f'{leaf.key}.classes', leaf.settings.get('classes')


def class_lists(cfg: Any, phases: Iterable[str], report: Report) -> list[ClassList]:
    """Find the class names of a config's datasets without reading annotations.

    Args:
        cfg (Config): A complete config.
        phases (Iterable[str]): The phases that will run.
        report (Report): Gets the problems.

    Returns:
        list[ClassList]: Without datasets that have a problem or of which nothing is known.
    """
    return [found for leaf in leaves(cfg, phases) if (found := _class_list(leaf, report))]


def _class_list(leaf: Leaf, report: Report) -> ClassList | None:
    key, stated = stated_classes(leaf)
    is_list, known = isinstance(stated, list | tuple), _fixed_names(leaf)
    if 'CLASSES' in (leaf.settings.get('metainfo') or {}):
        report.problems.append(f'{leaf.key}.metainfo.CLASSES is not read: the key is classes, in lower case.')
        return None
    if stated is not None and (fault := stated_fault(key, stated)):
        report.problems.append(fault)
        return None
    if is_list and known and not set(stated) <= set(known):
        report.problems += [
            f'{key}: {leaf.name} has {len(known)} classes, and a config can only select from them.',
            *differences(stated, known, f'in {leaf.name}'),
            "For classes of your own: type='BaseSegDataset', with the names in the order of the ids.",
        ]
        return None
    try:
        dataset = leaf.outline()
    except Exception as error:
        report.problems.append(f'{leaf.key} ({leaf.name}) cannot be built: {str(error) or type(error).__name__}')
        return None
    if dataset is None:
        return ClassList(leaf, tuple(stated), stated=True) if is_list else None
    names, things = dataset.metainfo.get('classes'), dataset.metainfo.get('thing_classes')
    if names is not None and (fault := stated_fault(f'{leaf.name}.METAINFO["classes"]', names)):
        report.problems.append(fault)
        return None
    _check_palette(leaf, dataset, names, report)
    names = None if names is None else tuple(names)
    return ClassList(leaf, names, stated is not None, dataset, things=None if things is None else len(things))


def _fixed_names(leaf: Leaf) -> Sequence[str] | None:
    """Return the names of a segmentation dataset's class; a config's selection is mapped from their ids."""
    kind = leaf.kind
    return getattr(kind, 'METAINFO', {}).get('classes') if hasattr(kind, 'get_label_map') else None


def _check_palette(leaf: Leaf, dataset: Any, names: Sequence[str] | None, report: Report) -> None:
    palette = dataset.metainfo.get('palette')
    if not isinstance(palette, list | tuple) or not names or len(palette) >= len(names):
        return
    fault = f'{leaf.key}: the palette has {len(palette)} colours for {len(names)} classes'
    if (leaf.settings.get('metainfo') or {}).get('palette') is not None:
        report.problems.append(f'{fault}. metainfo.palette needs one (R, G, B) per class.')
    else:
        report.notes.append(f'{fault}, so that drawing will fail: give a metainfo.palette of {len(names)} colours.')
