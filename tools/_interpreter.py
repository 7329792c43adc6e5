"""Start a script, or name an interpreter that can if this one lacks mmevm or its dependencies.

Python scripts call :func:`run`, or :func:`stop` when an import fails; shell scripts run this file before they start
processes. Standard library only, for any Python 3.
"""

from __future__ import annotations

import importlib
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NEEDED = ('mmevm', 'torch', 'mmengine')
VENVS = ('.venv', '.venv-openmmlab')
# Run by the other interpreter.
PROBE = 'import sys; from importlib.util import find_spec; sys.exit(any(find_spec(m) is None for m in sys.argv[1:]))'


def missing_modules(*others: str) -> list[str]:
    """Return those of :data:`NEEDED` and ``others`` that this interpreter lacks."""
    return [name for name in dict.fromkeys((*NEEDED, *others)) if find_spec(name) is None]


def _short(path: Path) -> str:
    """Return a path relative to the current folder, if it is below it."""
    relative = os.path.relpath(path)
    return str(path) if relative.startswith('..') else relative


def _capable(modules: Iterable[str]) -> Path | None:
    """Return the interpreter of the first of this checkout's environments with ``modules``."""
    for name in VENVS:
        python = ROOT / name / 'bin' / 'python'
        if Path(sys.prefix) != ROOT / name and python.exists():
            if subprocess.run([str(python), '-I', '-c', PROBE, *modules], check=False).returncode == 0:
                return python
    return None


def advice(missing: list[str], command: Callable[[str], str]) -> str:
    """Return what is missing and what to do.

    Args:
        missing (list[str]): Modules that this interpreter lacks.
        command (Callable[[str], str]): The command line for the path of another interpreter.

    Returns:
        str: The message.
    """
    problem = f'{sys.executable} has no {", ".join(missing)}'
    python = _capable(dict.fromkeys((*NEEDED, *missing)))
    if python:
        activate = f'source {shlex.quote(_short(python.with_name("activate")))}'
        return f'{problem}, {_short(python)} has: run `{command(_short(python))}`, or `{activate}` first.'
    install = 'install it there (docs/get_started.md)'
    if not (ROOT / 'Makefile').is_file():
        return f'{problem}: {install}.'
    python = _short(ROOT / VENVS[0] / 'bin' / 'python')
    return (
        f'{problem}, and no environment of this checkout has: run `make env` in {ROOT} (4 minutes, once), '
        f'then `{command(python)}`; or {install}.'
    )


def _end(missing: list[str], command: Callable[[str], str]) -> None:
    # One process of a distributed run prints it for all.
    if all(os.environ.get(name, '0') == '0' for name in ('RANK', 'SLURM_PROCID', 'OMPI_COMM_WORLD_RANK')):
        print(f'\n{advice(missing, command)}', file=sys.stderr)
    sys.exit(2)


def stop(error: ModuleNotFoundError) -> None:
    """End a script whose imports have failed with exit status 2 and advice.

    Args:
        error (ModuleNotFoundError): Raised again if the package is installed but incomplete.
    """
    name = (error.name or '').partition('.')[0]
    missing = missing_modules(name) if name else []
    if name not in missing:
        raise error
    _end(missing, lambda python: shlex.join([python, *sys.argv]))


def run(module: str) -> None:
    """Run the ``main`` function of a module as a script.

    The import takes seconds, during which a signal ends the process without a traceback.

    Args:
        module (str): E.g. ``'mmevm.apis.train'``.
    """
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number, handler in handlers.items():
        if handler != signal.SIG_IGN:
            signal.signal(number, lambda number, frame: os._exit(128 + number))
    try:
        function = importlib.import_module(module).main
    except ModuleNotFoundError as error:
        stop(error)
    for number, handler in handlers.items():
        signal.signal(number, handler or signal.SIG_DFL)
    sys.exit(function())


def main() -> None:
    """Check the interpreter for a shell script: ``_interpreter.py SCRIPT [ARGUMENT …]``."""
    missing = missing_modules()
    if missing:
        _end(missing, lambda python: f'PYTHON={shlex.quote(python)} bash {shlex.join(sys.argv[1:])}')


if __name__ == '__main__':
    main()
