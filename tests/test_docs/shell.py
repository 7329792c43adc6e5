"""Commands as the manual shows them: whether what they name exists, and whether programs take their arguments."""

import argparse
import importlib
import re
import runpy
import shlex
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import pytest

from mmevm.inferencers import models
from mmevm.zoo import ENTRIES, find_entry

from .pages import ROOT

# Scripts that take no options of ours.
_WITHOUT_OPTIONS = ('docs/tables.py', 'setup.py')
_ASSIGNMENT = re.compile(r'[A-Z_]+=.*')


class _Parsed(Exception):
    """Carries the arguments that a script has accepted, and ends it."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments = arguments


def commands(text: str) -> Iterator[list[str]]:
    """Yield the words of every command of a block, without variables that are set before it and without comments."""
    for line in re.sub(r'\\\n\s*', '', text).splitlines():
        words = shlex.split(line, comments=True)
        while words and _ASSIGNMENT.fullmatch(words[0]):
            del words[0]
        if words:
            yield words


def run_script(path: str, arguments: list[str]) -> Any:
    """Run a script of the repository as a program in this process; returns its exit status."""
    known = set(sys.modules)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, 'argv', [path, *arguments])
        patch.syspath_prepend(str((ROOT / path).parent))
        try:
            runpy.run_path(str(ROOT / path), run_name='__main__')
        except SystemExit as end:
            return end.code
        finally:
            # Modules beside the script have names that are common elsewhere, too.
            for name in set(sys.modules) - known:
                file = getattr(sys.modules[name], '__file__', None)
                if file and str(ROOT / path).rpartition('/')[0] == file.rpartition('/')[0]:
                    del sys.modules[name]
    return 0


def parse(path: str, arguments: list[str]) -> argparse.Namespace:
    """Let a script parse arguments, and end it there."""
    parse_args = argparse.ArgumentParser.parse_args

    def stop(self: argparse.ArgumentParser, *args: Any, **kwargs: Any) -> None:
        raise _Parsed(parse_args(self, *args, **kwargs))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, 'parse_args', stop)
        with pytest.raises(_Parsed) as parsed:
            status = run_script(path, arguments)
            pytest.fail(f'{path} {arguments} ended with {status}')
    return parsed.value.arguments


def check(words: list[str]) -> None:
    """Assert that a command is one that would be understood."""
    program, *arguments = words
    program = program.removeprefix('.venv/bin/')
    checks = {
        'python': _python,
        'python3': _python,
        'bash': _script,
        'make': _make,
        'pip': _pip,
        'mim': _mim,
        'compute-sanitizer': _sanitizer,
        'source': _source,
    }
    if program.endswith('.sh'):
        _script(words)
    else:
        assert program in checks, f'nothing checks {program}'
        checks[program](arguments)


def _python(arguments: list[str]) -> None:
    first, *rest = arguments
    if first == '-m' and rest[0] == 'pytest':
        missing = [word for word in rest if word.startswith('tests/') and not (ROOT / word).exists()]
        assert not missing
    elif first == '-m':
        assert find_spec(rest[0]), rest
    elif first in _WITHOUT_OPTIONS:
        assert (ROOT / first).is_file()
    else:
        _names(parse(first, rest))


def _names(arguments: argparse.Namespace) -> None:
    """Assert that configs, models, checkpoints of the zoo and keys of the model exist."""
    values = vars(arguments)
    for value in values.values():
        for word in value if isinstance(value, list) else [value]:
            if isinstance(word, str) and word.startswith('configs/'):
                assert (ROOT / word).is_file(), word
            if isinstance(word, str) and word.startswith('mmevm://'):
                find_entry(word)
    if isinstance(values.get('name'), str):
        assert values['name'] in ENTRIES
    if isinstance(values.get('model'), str):
        assert values['model'] in models()
    if str(values.get('config')).startswith('configs/') and values.get('cfg_options'):
        _keys(values['config'], values['cfg_options'])


def _keys(config: str, options: dict[str, Any]) -> None:
    from mmengine.config import Config

    cfg = Config.fromfile(ROOT / config)
    for key in options:
        *parents, _ = key.split('.')
        node = cfg
        for name in parents if parents[:1] == ['model'] else []:
            assert name in node, f'{config} has no {key}'
            node = node[name]


def _script(arguments: list[str]) -> None:
    path, *rest = arguments
    assert (ROOT / path).is_file()
    tools = {
        'dist_train.sh': ('tools/train.py', [0]),
        'dist_test.sh': ('tools/test.py', [0, 1]),
        'slurm_train.sh': ('tools/train.py', [2]),
    }
    name = path.rpartition('/')[2]
    if name in tools:
        # The number of processes, or Slurm's partition and job, stand between the tool's own arguments.
        tool, own = tools[name]
        _names(parse(tool, [rest[i] for i in own] + rest[3 if name != 'dist_train.sh' else 2 :]))
    else:
        text = (ROOT / path).read_text()
        assert all(f'{option})' in text for option in rest if option.startswith('--'))


def _make(targets: list[str]) -> None:
    known = re.findall(r'^([a-z-]+):', (ROOT / 'Makefile').read_text(), re.MULTILINE)
    assert targets and set(targets) <= set(known)


def _pip(arguments: list[str]) -> None:
    from pip._internal.commands import create_command

    command, *rest = arguments
    create_command(command).parser.parse_args(rest)


def _mim(arguments: list[str]) -> None:
    command, *rest = arguments
    context = importlib.import_module(f'mim.commands.{command}').cli.make_context(command, list(rest))
    configs = context.params.get('configs') or context.params.get('config') or ()
    configs = configs if isinstance(configs, list | tuple) else [configs]
    assert all(name in models() for name in configs if not name.endswith('.py'))


def _sanitizer(arguments: list[str]) -> None:
    check(arguments[arguments.index('python3') :])


def _source(arguments: list[str]) -> None:
    assert arguments == ['.venv/bin/activate']
