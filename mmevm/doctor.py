"""``python -m mmevm.doctor``: what is installed, and which operator backends work here.

Except for torch and mmengine, without which mmevm cannot be imported, nothing missing or broken stops the report: every
probe returns a value or the text of the error. The exit status is 0 if at least one operator backend is usable.
"""

import argparse
import importlib.metadata
import json
import platform
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import partial

import mmevm.ops.backends
from mmevm import mmcv_ext
from mmevm._cuda_toolkit import find_cuda_toolkit

LIBRARIES = ('mmengine', 'mmcv', 'mmdet', 'mmseg', 'mmpretrain', 'triton')
IMPORT_SECONDS = 300
LABEL_WIDTH = 12

Row = tuple[str, str]
"""Label and text of one line of the report."""


def last_line(text: str) -> str:
    """Return the last line that is not blank; of a traceback, the error."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else 'no message'


def describe(error: BaseException) -> str:
    """Format an error in one line."""
    return f'{type(error).__name__}: {last_line(str(error))}'


def evaluate(imports: str, expression: str) -> str:
    """Evaluate an expression after imports to a string, in a Python process of its own, which may crash.

    Args:
        imports (str): Statements.
        expression (str): Expression over what they import.

    Raises:
        RuntimeError: With the error's text, or the signal that ended the process.
    """
    code = f'{imports}\nimport json\nprint()\nprint(json.dumps(str({expression})))'
    command = [sys.executable, '-W', 'ignore', '-c', code]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=IMPORT_SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise RuntimeError(f'no answer within {IMPORT_SECONDS} s') from error
    if result.returncode < 0:
        raise RuntimeError(f'crashed with signal {-result.returncode}: {last_line(result.stderr)}')
    if result.returncode:
        raise RuntimeError(last_line(result.stderr))
    if not result.stdout.strip():
        raise RuntimeError('it ended the process without an error')
    return json.loads(last_line(result.stdout))


def distributions(module: str) -> str:
    """Name and version of what provides a module, such as ``onedl-mmcv 2.3.6``; '' when nothing does."""
    names = sorted(set(importlib.metadata.packages_distributions().get(module, [])))
    return ', '.join(f'{name} {importlib.metadata.version(name)}' for name in names)


def library(module: str) -> str:
    """Return which distribution provides a library, and whether it can be imported."""
    provider = distributions(module)
    try:
        version = evaluate(f'import {module}', f'getattr({module}, "__version__", "of unknown version")')
    except RuntimeError as error:
        return f'{provider}, does not import: {error}' if provider else 'not installed'
    return provider or f'{version}, not installed by a package manager'


def mmcv_operators() -> str:
    """Return which operators ``mmcv.ops`` has, and whether it can be imported with them."""
    if not distributions('mmcv'):
        return 'mmcv is not installed'
    try:
        cuda = evaluate('import mmevm, mmcv.ops', 'mmcv.ops.get_compiling_cuda_version()')
    except RuntimeError as error:
        return f'do not import: {error}; with an mmcv without compiled operators (mmcv-lite) mmevm supplies them'
    if not mmcv_ext.is_compiled():
        return mmcv_ext.describe()
    return mmcv_ext.describe() + (', without CUDA' if cuda == 'not available' else f', with CUDA {cuda}')


def torch_build() -> str:
    """Return torch's version and the CUDA toolkit it was built with."""
    import torch

    cuda = f'built with CUDA {torch.version.cuda}' if torch.version.cuda else 'built without CUDA'
    return f'{torch.__version__}, {cuda}, {torch.get_num_threads()} threads'


def gpus() -> str:
    """Return the GPUs that torch sees, and the driver."""
    import torch

    try:
        torch.cuda.init()
    except (AssertionError, RuntimeError) as error:
        return f'none visible to torch: {str(error).splitlines()[0]}'
    properties = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    names = ', '.join(f'{p.name} (compute capability {p.major}.{p.minor})' for p in properties)
    command = ['nvidia-smi', '--query-gpu=driver_version', '--format=csv,noheader']
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        driver = last_line(result.stdout)
    except (OSError, subprocess.SubprocessError) as error:
        driver = f'unknown ({describe(error)})'
    return f'{names}; driver {driver}'


def nvcc() -> str:
    """Return the CUDA compiler."""
    toolkit = find_cuda_toolkit()
    if toolkit is None:
        return 'not found; the CUDA toolkit is needed to compile CUDA operators only'
    return f'{toolkit.version[0]}.{toolkit.version[1]} ({toolkit.nvcc}, toolkit {toolkit.home})'


def package() -> str:
    """Return mmevm's version and where it is installed."""
    provider = distributions('mmevm') or 'not installed'
    return f'{mmevm.__version__} ({provider}; imported from {mmevm.__path__[0]})'


def probe(function: Callable[[], str]) -> str:
    """Return the result of a probe, or how it failed."""
    try:
        return function()
    except Exception as error:  # the report has to survive broken installations
        return f'error: {describe(error)}'


def versions() -> list[Row]:
    """Return one row per component."""
    rows = [
        ('python', f'{platform.python_version()} ({sys.executable}, {platform.platform()})'),
        ('torch', probe(torch_build)),
        ('torchvision', probe(lambda: library('torchvision'))),
        ('GPU', probe(gpus)),
        ('nvcc', probe(nvcc)),
    ]
    rows += [(module, probe(partial(library, module))) for module in LIBRARIES]
    after_mmcv = [label for label, _ in rows].index('mmcv') + 1
    rows.insert(after_mmcv, ('mmcv.ops', probe(mmcv_operators)))
    return [*rows, ('mmevm', probe(package))]


def backends() -> tuple[list[Row], bool]:
    """Return a row per operator backend and device, with the remedy if unavailable, and whether any is usable."""
    try:
        states = mmevm.ops.backends.status()
    except Exception as error:
        return [('error', f'the backends cannot be listed: {describe(error)}')], False
    rows = []
    for state in states:
        verdict = 'available' if state.available else 'not available'
        rows.append((f'{state.name} ({state.device})', f'{verdict}: {state.reason}'))
        if not state.available and state.remedy:
            rows.append(('', f'to enable it: {state.remedy}'))
    return rows, any(state.available for state in states)


def show(title: str, rows: list[Row], width: int) -> None:
    """Print a titled table."""
    print(f'{title}\n')
    for label, text in rows:
        print(f'  {label:<{width}}  {text}')
    print()


def main(argv: Sequence[str] = ()) -> int:
    """Print the report; return the exit status."""
    argparse.ArgumentParser(
        'python -m mmevm.doctor',
        description='Print what is installed and, for each operator backend, whether it is available, why not, and '
        'what would enable it. The exit status is 0 if at least one backend is usable.',
    ).parse_args(argv)
    show('Versions', versions(), LABEL_WIDTH)
    rows, usable = backends()
    show('Operator backends', rows, max(len(label) for label, _ in rows))
    if not usable:
        print('No operator backend is usable: mmevm cannot run here.')
    return 0 if usable else 1


if __name__ == '__main__':
    raise SystemExit(main(sys.argv[1:]))
