"""``tools/tile_data.py``: large images cut into tiles, for training."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmevm.data.reading import DETECTION_LAYOUTS, read_data
from mmevm.data.records import SPLITS
from mmevm.data.summary import refusal
from mmevm.data.tiles import Tiling, tile_data
from mmevm.errors import UsageError, exit_status


def parse_args(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Parse the command line (default: the process's own) to the arguments of :func:`run`."""
    parser = argparse.ArgumentParser(
        description='Cut the images of a detection dataset into overlapping tiles, and write them as a COCO dataset '
        'for --data. The dataset itself is only read.'
    )
    parser.add_argument('data', metavar='PATH', help=DETECTION_LAYOUTS.replace('%', '%%'))
    parser.add_argument('out', type=Path, metavar='OUT', help='a new folder')
    parser.add_argument('--size', type=int, default=512, help='edge of a tile in pixels (default: %(default)s)')
    parser.add_argument(
        '--overlap', type=int, default=128, help='pixels that neighbouring tiles share (default: %(default)s)'
    )
    parser.add_argument(
        '--share',
        type=float,
        default=0.5,
        help='objects with less than this share of their box in a tile become crowd objects there, which are ignored '
        '(default: %(default)s)',
    )
    parser.add_argument(
        '--whole', nargs='*', default=(), choices=SPLITS, metavar='SPLIT', help='splits that are copied, not cut'
    )
    return vars(parser.parse_args(argv))


def run(data: str, out: Path, *, size: int, overlap: int, share: float, whole: Sequence[str] = ()) -> None:
    """Cut a dataset and print what was written.

    Args:
        data (str): A detection dataset in any layout that :func:`mmevm.data.reading.read_data` knows.
        out (Path): A new folder.
        size (int): Edge of a tile in pixels.
        overlap (int): Pixels that neighbouring tiles share at least.
        share (float): Objects with less of their box in a tile become crowd objects there.
        whole (Sequence[str]): Splits whose images are copied as they are.

    Raises:
        UsageError: It is not such a dataset, has problems, or an argument does not fit.
    """
    tiling = Tiling(size, overlap, share)
    found = read_data(data, 'detection', with_shapes=False)
    if message := refusal(found):
        raise UsageError(f'{message}\nThe whole list: python tools/check_data.py {data}')
    folder = Path(data).expanduser().resolve()
    if folder.is_dir() and folder in out.resolve().parents:
        raise UsageError(f'{out} is inside the dataset {data}, of which it would become a part. Give another folder.')
    if found.has_shapes:
        print('Masks are not cut: the tiles have boxes alone.')
    for name, split in tile_data(found, out.absolute(), tiling, tuple(whole)).items():
        things = [thing for sample in split.samples for thing in sample.things]
        crowd = sum(thing.crowd for thing in things)
        print(f'{name}: {len(split.samples)} images, {len(things) - crowd} objects and {crowd} cut to crowd')
    print(f'Train on them with --data {out}')


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``tools/tile_data.py`` and return its exit status."""
    args = parse_args(argv)
    return exit_status(lambda: run(**args))
