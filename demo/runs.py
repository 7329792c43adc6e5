"""Shared by the demos: run the project's own tools one after the other, and find what they wrote."""

import argparse
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from tqdm import tqdm

T = TypeVar('T')

#: The repository.
ROOT = Path(__file__).resolve().parents[1]


def parse_args(description: str, models: Sequence[str] = ()) -> argparse.Namespace:
    """Read a demo's command line; of several models, the first one is the default."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        '--keep', action='store_true', help='evaluate and draw the last training run instead of a new one'
    )
    if models:
        parser.add_argument('--model', choices=models, default=models[0], help='default: %(default)s')
    return parser.parse_args()


def show_progress(items: Sequence[T], title: str) -> Iterable[T]:
    """Print a title, and return the items with a progress bar on a terminal."""
    print(title, flush=True)
    return tqdm(items, disable=None, leave=False)


def run_step(title: str, *command: str) -> float:
    """Run one of the project's tools and print its output.

    Args:
        title (str): What the step does and how long it may take.
        *command (str): Path of the tool below the repository, and its arguments.

    Returns:
        float: Seconds it took.

    Raises:
        SystemExit: If the tool fails.
    """
    print(f'\n== {title}\n   python {" ".join(command)}', flush=True)
    start = time.perf_counter()
    status = subprocess.run([sys.executable, *command], cwd=ROOT, check=False).returncode
    if status:
        raise SystemExit(f'The demo stopped: {command[0]} failed with status {status}; see its message above.')
    return time.perf_counter() - start


def newest(folder: Path, pattern: str) -> Path:
    """Return the newest file below ``folder`` that matches ``pattern``.

    Raises:
        SystemExit: If there is none, because nothing was trained.
    """
    found = list((ROOT / folder).glob(pattern))
    if not found:
        raise SystemExit(f'{ROOT / folder} has no {pattern}: run the demo without --keep.')
    return max(found, key=lambda path: path.stat().st_mtime)


def train_and_test(
    config: str, work: Path, keep: bool, *test_arguments: str, data: Path | None = None
) -> tuple[str, dict[str, float]]:
    """Train a config and evaluate its last checkpoint.

    Args:
        config (str): Path below the repository.
        work (Path): Work folder below the repository, emptied first; the evaluation goes to ``test/`` in it.
        keep (bool): Evaluate the training run that is there.
        *test_arguments (str): Further arguments of ``tools/test.py``.
        data (Path, optional): A dataset for ``--data``.

    Returns:
        tuple[str, dict[str, float]]: How long the training took, in words, and the metrics by name.
    """
    took = 'an earlier training run'
    source = () if data is None else ('--data', str(data))
    if keep:
        shutil.rmtree(ROOT / work / 'test', ignore_errors=True)
    else:
        shutil.rmtree(ROOT / work, ignore_errors=True)
        seconds = run_step(
            'Training from random weights; "eta" is the time that is left',
            'tools/train.py',
            config,
            '--work-dir',
            str(work),
            *source,
        )
        took = f'{seconds / 60:.1f} minutes of training'
    checkpoint = newest(work, '*_*.pth').relative_to(ROOT)
    run_step(
        'Evaluating on unseen images, under a minute',
        'tools/test.py',
        config,
        str(checkpoint),
        '--work-dir',
        str(work / 'test'),
        *source,
        *test_arguments,
    )
    return took, json.loads(newest(work, 'test/*/*.json').read_text(encoding='utf-8'))
