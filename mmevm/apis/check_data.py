"""``tools/check_data.py``: what is in a dataset, and what is wrong with it."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmevm.data.reading import LAYOUTS, read_data
from mmevm.data.sheet import draw_sheet
from mmevm.data.summary import describe, listing, refusal
from mmevm.errors import UsageError, exit_status


def parse_args(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Parse the command line (default: the process's own) to the arguments of :func:`check_data`."""
    parser = argparse.ArgumentParser(
        description='Show what is in a dataset, and list everything that would keep it from being trained on; the exit '
        'status is 2 if there are problems. Nothing is written but the contact sheet.'
    )
    parser.add_argument('data', metavar='PATH', help=LAYOUTS.replace('%', '%%'))
    parser.add_argument('--out', type=Path, metavar='FILE.jpg', help='draw some images with their annotations')
    return vars(parser.parse_args(argv))


def check_data(data: str, *, out: Path | None = None) -> None:
    """Print a table of a dataset and all of its problems, and draw a contact sheet.

    Args:
        data (str): A dataset in any layout that :func:`mmevm.data.reading.read_data` knows.
        out (Path, optional): File of the contact sheet, ``.jpg`` or ``.png``.

    Raises:
        UsageError: It is not a dataset, or has problems.
    """
    if out and out.suffix.lower() not in ('.jpg', '.jpeg', '.png'):
        raise UsageError(f'--out must end with .jpg or .png, got {out}')
    found = read_data(data)
    print(describe(found))
    for line in listing(found.findings.notes, None):
        print(line)
    if out and (drawn := draw_sheet(found, out)):
        print(f'Some of the images with their annotations: {drawn}')
    if message := refusal(found, None):
        raise UsageError(message)
    print('No problems found.')


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``tools/check_data.py`` and return its exit status."""
    args = parse_args(argv)
    return exit_status(lambda: check_data(**args))
