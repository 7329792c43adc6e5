"""``python -m mmevm.mmcv_ext``: the operators also for programs that import mmcv before mmevm, as mmdet's own tools."""

import argparse
import sys
from collections.abc import Sequence

from mmevm.mmcv_ext import describe, find_extension, mmcv_folder

_FILE = '''"""Written by `python -m mmevm.mmcv_ext install`; `python -m mmevm.mmcv_ext remove` deletes it."""

from mmevm.mmcv_ext import operators


def __getattr__(name):
    return getattr(operators, name)
'''


def install() -> str:
    """Write ``_ext.py`` into mmcv's folder, for programs that import mmcv before mmevm. Return what was done.

    Raises:
        ModuleNotFoundError: If mmcv is not installed.
        OSError: If its folder cannot be written to.
    """
    found = find_extension()
    if found:
        return f'nothing to do: mmcv has {found}'
    path = mmcv_folder() / '_ext.py'
    path.write_text(_FILE)
    return f'written: {path}'


def remove() -> str:
    """Delete what :func:`install` wrote. Return what was done.

    Raises:
        ModuleNotFoundError: If mmcv is not installed.
        OSError: If its folder cannot be written to.
    """
    path = mmcv_folder() / '_ext.py'
    if not path.is_file() or path.read_text() != _FILE:
        return f'nothing to do: no {path.name} of mmevm in {path.parent}'
    path.unlink()
    return f'removed: {path}'


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``python -m mmevm.mmcv_ext``; return the exit status."""
    parser = argparse.ArgumentParser('python -m mmevm.mmcv_ext', description='Operators for an mmcv that has none.')
    commands = {'status': describe, 'install': install, 'remove': remove}
    parser.add_argument('command', choices=commands, help='install: also for programs that import mmcv before mmevm')
    try:
        print(commands[parser.parse_args(argv).command]())
    except (ImportError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == '__main__':
    raise SystemExit(main())
