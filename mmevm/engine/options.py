"""Values of ``--cfg-options``, parsed as by MMEngine except for paths and spaces.

MMEngine's ``DictAction`` removes all spaces, splits at commas and converts digits to numbers, which is right for
``(0.5, 2.0)`` and wrong for ``/data/my images, 2024/``. What a value means depends on what it replaces, so values are
parsed once the config is known.
"""

import argparse
import os
import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from mmengine.config import DictAction

from mmevm.errors import UsageError

# Names of settings with paths; those of the second kind may have numbers as well, as `drop_path` does.
_PATH_NAME = re.compile(r'(^|_)(root|dir|folder|file|checkpoint|ckpt|load_from|resume_from)$')
_PATH_LIKE_NAME = re.compile(r'(^|_)(path\d?|prefix|pretrained|filename|config)$')
_PATH_VALUE = re.compile(r'[/~\\]|\.{1,2}[/\\]|[A-Za-z]:[/\\]|[\w+.-]+://')
# Spaces between words; those next to a bracket or a comma separate elements.
_INNER_SPACE = re.compile(r'(?<=[^\s,()\[\]]) +(?=[^\s,()\[\]])')
_SPACE = '\x1f'


class KeyValues(argparse.Action):
    """Collects ``KEY=VALUE`` arguments in a dict of unparsed strings."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        """Add the arguments to those of earlier flags."""
        options = dict(getattr(namespace, self.dest) or {})
        for argument in values:
            key, equals, value = argument.partition('=')
            if not equals or not key:
                parser.error(
                    f'{option_string} expects KEY=VALUE, got {argument!r}. A value with spaces must be '
                    f'quoted: {option_string} "data_root=/my data"'
                )
            options[key] = value
        setattr(namespace, self.dest, options)


def add_cfg_options(parser: argparse.ArgumentParser, text: str) -> None:
    """Add ``--cfg-options`` to a command line.

    Args:
        parser (argparse.ArgumentParser): The parser.
        text (str): The option's help.
    """
    parser.add_argument('--cfg-options', nargs='+', action=KeyValues, default={}, metavar='KEY=VALUE', help=text)


def _bare(text: str) -> str:
    """Strip spaces and quotes around a path, unless they belong to it."""
    if os.path.lexists(text):
        return text
    text = text.strip()
    quoted = len(text) > 1 and text[0] == text[-1] and text[0] in '\'"'
    return text[1:-1] if quoted and not os.path.lexists(text) else text


def _parsed(text: str) -> Any:
    """Parse a value by MMEngine's ``DictAction``, but keep the spaces between words."""
    namespace = argparse.Namespace()
    argument = f'value={_INNER_SPACE.sub(lambda match: _SPACE * len(match[0]), text.strip())}'
    DictAction([], 'options')(argparse.ArgumentParser(), namespace, [argument])
    return _with_spaces(namespace.options['value'])


def _with_spaces(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return type(value)(_with_spaces(item) for item in value)
    return value.replace(_SPACE, ' ') if isinstance(value, str) else value


def _is_path(key: str, text: str, value: Any, present: Any) -> bool:
    """Return whether ``text``, which MMEngine parses as ``value``, is a path that replaces ``present``."""
    if value is None or isinstance(value, bool) or isinstance(present, list | tuple | Mapping):
        return False
    *parents, name = key.split('.')
    named = bool(_PATH_NAME.search(name)) or (bool(parents) and parents[-1] == 'data_prefix')
    if isinstance(value, int | float):
        return named or (isinstance(present, str) and bool(_PATH_LIKE_NAME.search(name)))
    if text.startswith(('[', '(')) and isinstance(value, list | tuple):
        # A list of paths, unless the config has a single path.
        return named and (isinstance(present, str) or not parents)
    if isinstance(value, list) and not named and all(_PATH_VALUE.match(str(item)) for item in value):
        return False
    looks_like_path = bool(_PATH_VALUE.match(text)) or (isinstance(present, str) and '/' in present)
    return named or looks_like_path or bool(_PATH_LIKE_NAME.search(name))


def present_value(cfg: Any, key: str) -> Any:
    """Return the config's value for a dotted key, ``None`` if it has none."""
    value = cfg
    for part in key.split('.'):
        if isinstance(value, list | tuple) and part.lstrip('-').isdigit():
            value = value[int(part)] if int(part) < len(value) else None
        elif isinstance(value, Mapping) or hasattr(value, 'get'):
            value = value.get(part)
        else:
            return None
    return value


def parts(value: Any, key: str, names: Collection[str] | None = None) -> Iterator[tuple[str, Any]]:
    """Yield the dicts of a setting, each with its dotted key.

    Args:
        value (Any): A dict, a list, or anything else, which has none.
        key (str): The key of ``value``.
        names (Collection[str], optional): The keys to follow inside of dicts, by default all.
    """
    if isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from parts(item, f'{key}.{index}', names)
    elif isinstance(value, Mapping):
        yield key, value
        for name, item in value.items():
            if names is None or name in names:
                yield from parts(item, f'{key}.{name}', names)


def read_options(options: Mapping[str, Any], cfg: Any) -> dict[str, Any]:
    """Parse the values of ``--cfg-options`` for a config.

    Paths stay as typed, with ``~`` expanded: values of settings with the name of a path (``data_root``, ``ann_file``,
    ``work_dir``, ``load_from``, ``checkpoint``, …), values that replace a path, and those that look like one. All
    others are parsed as by MMEngine, but spaces between words are kept.

    Args:
        options (Mapping[str, Any]): By dotted key; values that are not strings are returned as they are.
        cfg (Config): The config that they change.

    Returns:
        dict[str, Any]: By the same keys, for ``Config.merge_from_dict``.

    Raises:
        UsageError: Brackets do not match.
    """
    return {key: _read(key, value, cfg) if isinstance(value, str) else value for key, value in options.items()}


def _read(key: str, text: str, cfg: Any) -> Any:
    bare, fault = _bare(text), None
    try:
        value = _parsed(text)
    except AssertionError as error:  # of unmatched brackets, which a path may have
        value, fault = bare, error
    if _is_path(key, bare, value, present_value(cfg, key)):
        return os.path.expanduser(bare)
    if fault:
        raise UsageError(f'--cfg-options {key}={text} cannot be read: {fault}') from fault
    return value
