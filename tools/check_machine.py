"""Report what this machine lacks for ``make env``, before anything is installed. Standard library only."""

import os
import shutil
import sys
import sysconfig
from pathlib import Path

OLDEST_PYTHON = (3, 11)


def problem() -> str | None:
    """Return what is missing and what to do, or None."""
    version = '.'.join(map(str, sys.version_info[:2]))
    if sys.version_info < OLDEST_PYTHON:
        return f'Python 3.11 or newer is needed, this is {version}: make PYTHON=/path/to/python3.11 ...'
    if not (Path(sysconfig.get_paths()['include']) / 'Python.h').is_file():
        return f'the headers of Python {version} are missing (Python.h): install python{version}-dev'
    compiler = os.environ.get('CXX', 'g++').split()[0]
    if shutil.which(compiler) is None:
        return f'there is no C++ compiler ({compiler}): install g++ 9 or newer, or set CXX'
    return None


if __name__ == '__main__':
    sys.exit(problem())
