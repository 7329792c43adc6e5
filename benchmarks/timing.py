"""Shared by the benchmarks: interleaved timing, a record of the machine, and tables as Markdown and JSON."""

import argparse
import datetime
import gc
import importlib.metadata
import json
import math
import os
import platform
import random
import shlex
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

import mmevm

RESULTS = Path(__file__).resolve().parent / 'results'

AVX512 = {'avx512f', 'avx512bw', 'avx512dq', 'avx512vl'}

Row = dict[str, Any]
"""Values of one line of a table, by name."""


def interleaved(
    callables: Mapping[str, Callable[[], Any]], repeats: int, warmup: int, settle: int = 1, pause: float = 0
) -> dict[str, list[float]]:
    """Time callables in turn, one call of each per round, so that drift of the machine affects all of them alike.

    Each round has another order (the same in every run), so that none always follows the same neighbour. ``settle``
    untimed calls precede each timed one, so that the callable's own weights are in the caches, not its neighbour's.

    Args:
        callables (Mapping[str, Callable]): What to time, by name.
        repeats (int): Timed rounds, at least 1.
        warmup (int): Untimed rounds before them.
        settle (int): Untimed calls directly before each timed one.
        pause (float): Seconds of rest before those, where a neighbour's threads are others, and still spin for work.

    Returns:
        dict[str, list[float]]: Milliseconds of every timed call, by name; equal positions come from the same round.

    Raises:
        ValueError: If ``repeats`` is below 1.
    """
    return take_turns({name: partial(_time, run, settle, pause) for name, run in callables.items()}, repeats, warmup)


def take_turns(
    samplers: Mapping[str, Callable[[], float]], repeats: int, warmup: int = 0, seconds: float = math.inf
) -> dict[str, list[float]]:
    """Measure in rounds of one sample of each, in shuffled order, without garbage collection.

    Args:
        samplers (Mapping[str, Callable]): Functions that return milliseconds, by name.
        repeats (int): Rounds that count, at least 1.
        warmup (int): Rounds before them.
        seconds (float): After these no further round begins, except the first one that counts.

    Returns:
        dict[str, list[float]]: The samples by name.

    Raises:
        ValueError: If ``repeats`` is below 1.
    """
    if repeats < 1:
        raise ValueError(f'`repeats` must be at least 1, got {repeats}')
    times: dict[str, list[float]] = {name: [] for name in samplers}
    order, shuffle = list(samplers), random.Random(0).shuffle
    gc.collect()
    gc.disable()
    try:
        end = time.monotonic() + seconds
        for turn in range(warmup + repeats):
            if turn > warmup and time.monotonic() > end:
                break
            shuffle(order)
            for name in order:
                milliseconds = samplers[name]()
                if turn >= warmup:
                    times[name].append(milliseconds)
    finally:
        gc.enable()
    return times


def _time(function: Callable[[], Any], settle: int, pause: float) -> float:
    time.sleep(pause)
    for _ in range(settle):
        function()
    start = time.perf_counter()
    # The result is kept until the clock has stopped: freeing it is not to be timed.
    result = function()
    milliseconds = 1e3 * (time.perf_counter() - start)
    del result
    return milliseconds


def summarise(times: Iterable[float]) -> Row:
    """Median, quartiles and best of a list of times, as ``median``, ``p25``, ``p75`` and ``best``."""
    p25, median, p75 = np.percentile(list(times), [25, 50, 75]).tolist()
    return {'median': median, 'p25': p25, 'p75': p75, 'best': min(times)}


def add_rates(rows: list[Row]) -> None:
    """Add images per second, nanoseconds per pixel, and the latter relative to the same network's smallest images.

    Args:
        rows (list[Row]): With ``model``, perhaps ``scan``, ``batch``, ``resolution`` and ``median`` milliseconds.
    """
    smallest = {}
    for row in sorted(rows, key=lambda row: -row['resolution']):
        row['rate'] = 1e3 * row['batch'] / row['median']
        row['per_pixel'] = 1e6 * row['median'] / (row['batch'] * row['resolution'] ** 2)
        smallest[row['model'], row.get('scan')] = row['per_pixel']  # the last one stays
    for row in rows:
        row['relative'] = row['per_pixel'] / smallest[row['model'], row.get('scan')]


def cpu_information() -> tuple[str, set[str]]:
    """Return the processor's name and instruction sets, if the system reports them."""
    try:
        lines = Path('/proc/cpuinfo').read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine(), set()
    fields = {key.strip(): value.strip() for key, _, value in (line.partition(':') for line in lines)}
    return fields.get('model name', platform.machine()), set(fields.get('flags', '').split())


def kernel_capability(flags: set[str]) -> str:
    """Return which CPU kernels mmevm uses: the choice of ``MMEVM_CPU_CAPABILITY``, else the widest supported."""
    chosen = os.environ.get('MMEVM_CPU_CAPABILITY')
    if chosen:
        return f'{chosen} (MMEVM_CPU_CAPABILITY)'
    if flags >= AVX512:
        return 'avx512bf16' if 'avx512_bf16' in flags else 'avx512'
    return 'avx2' if flags >= {'avx2', 'fma'} else 'default'


def version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return 'not installed'


def environment() -> dict[str, str]:
    """Everything that the numbers depend on besides the code: machine, threads, versions, command."""
    cpu, flags = cpu_information()
    script = Path(sys.argv[0])
    return {
        'CPU': f'{cpu}, {os.cpu_count()} logical cores',
        'threads': str(torch.get_num_threads()),
        'load average before': f'{LOAD_BEFORE:.2f}' if LOAD_BEFORE is not None else 'unknown',
        'mmevm kernels': kernel_capability(flags),
        'ATen kernels': torch.backends.cpu.get_cpu_capability(),
        'mmevm': mmevm.__version__,
        'torch': torch.__version__,
        'timm': version('timm'),
        'Python': platform.python_version(),
        'date': datetime.datetime.now().astimezone().isoformat(timespec='seconds'),
        'command': shlex.join(['python', f'{script.parent.name}/{script.name}', *sys.argv[1:]]),
    }


def _load_average() -> float | None:
    try:
        return os.getloadavg()[0]
    except OSError:
        return None


# Measured at import: later, the benchmark itself is the load.
LOAD_BEFORE = _load_average()


def add_arguments(parser: argparse.ArgumentParser, repeats: int, warmup: int) -> None:
    """Add the options that all timed benchmarks have."""
    parser.add_argument('--threads', type=int, help="threads (default: torch's choice)")
    parser.add_argument('--repeats', type=int, default=repeats, help='timed rounds (default: %(default)s)')
    parser.add_argument('--warmup', type=int, default=warmup, help='untimed rounds (default: %(default)s)')
    parser.add_argument('--out', type=Path, default=RESULTS, help='folder for the results (default: %(default)s)')


def set_threads(threads: int | None) -> None:
    """Set torch's threads and seed its random numbers."""
    if threads is not None:
        torch.set_num_threads(threads)
    torch.manual_seed(0)


def replace_file(path: Path, write: Callable[[Path], Any]) -> None:
    """Write a file atomically: under a temporary name, then rename it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f'.{path.name}.{os.getpid()}')
    try:
        write(draft)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def _cell(template: str, row: Row) -> str:
    """Fill a template; a dash where a value is absent, because None takes no number format."""
    try:
        return template.format_map(row)
    except (KeyError, TypeError):
        return '–'


def markdown_table(rows: list[Row], columns: Mapping[str, str]) -> str:
    """Return a Markdown table.

    Args:
        rows (list[Row]): Its lines.
        columns (Mapping[str, str]): Format template of the cells, by heading, such as ``'{median:.1f}'``.
    """
    lines = [list(columns), ['---'] * len(columns)]
    lines += [[_cell(template, row) for template in columns.values()] for row in rows]
    return '\n'.join(f'| {" | ".join(line)} |' for line in lines)


def save(
    out: Path,
    name: str,
    title: str,
    rows: list[Row],
    columns: Mapping[str, str],
    notes: Iterable[str] = (),
    **details: Any,
) -> None:
    """Print a table and write it as ``<out>/<name>.md`` and, with all values, as ``<out>/<name>.json``.

    Args:
        out (Path): Folder.
        name (str): File name without its ending.
        title (str): Heading.
        rows (list[Row]): The table's lines.
        columns (Mapping[str, str]): See :func:`markdown_table`.
        notes (Iterable[str]): Paragraphs below the table.
        **details (Any): Further entries of the JSON file.
    """
    machine = environment()
    body = '\n\n'.join([f'# {title}', markdown_table(rows, columns), *notes])
    text = '\n'.join([body, '', *(f'- {key}: {value}' for key, value in machine.items()), ''])
    content = {'environment': machine, 'notes': list(notes), 'rows': rows, **details}
    replace_file(out / f'{name}.md', lambda path: path.write_text(text, encoding='utf-8'))
    replace_file(
        out / f'{name}.json',
        lambda path: path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + '\n', encoding='utf-8'),
    )
    # Last, so that a closed pipe only loses the text, not the files.
    print(f'{text}\nwritten: {out / name}.md and .json')
