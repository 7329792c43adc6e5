"""Render small COCO, ADE20K and ImageNet trees in the real layouts: ``tools/make_mini_data.py --out data/mini``."""

import argparse
import runpy
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for the package demo
try:
    from demo.mini_data import MiniData, make_mini_data
    from demo.mini_data.datasets import SUBSETS
    from demo.runs import show_progress
except ModuleNotFoundError as error:
    runpy.run_path(str(Path(__file__).with_name('_interpreter.py')))['stop'](error)


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description='Render miniature COCO, ADE20K and ImageNet: scenes with exact boxes, masks and labels under the '
        "datasets' own class ids, in the layouts that mmdet, mmseg and mmpretrain read. The same options give the "
        'same bytes, and what is there already is not rendered again.'
    )
    parser.add_argument('--out', default='data/mini', metavar='DIR', help='folder to write to (default: %(default)s)')
    parser.add_argument(
        '--only',
        nargs='+',
        choices=SUBSETS,
        default=list(SUBSETS),
        metavar='SET',
        help=f'render only these of {", ".join(SUBSETS)} (default: all)',
    )
    parser.add_argument('--seed', type=int, default=0, help='default: %(default)s')
    parser.add_argument(
        '--image-size', type=int, default=256, metavar='PIXELS', help='edge of the square images (default: %(default)s)'
    )
    parser.add_argument(
        '--train-images',
        type=int,
        metavar='N',
        help='training images per dataset (default: coco 480, ade20k 120, imagenet 160)',
    )
    parser.add_argument(
        '--val-images',
        type=int,
        metavar='N',
        help='validation images per dataset (default: coco 80, ade20k 24, imagenet 40)',
    )
    parser.add_argument(
        '--force',
        action='store_true',
        help='render even what is there; a folder with other files is renamed, never deleted',
    )
    return parser.parse_args()


def describe(data: MiniData) -> str:
    """Return what was written, and the option that makes a config use it."""
    state = 'rendered' if data.rendered else 'there already, left as it is'
    options = data.options
    return (
        f'{data.subset}: {options.train_images} training and {options.val_images} validation images of '
        f'{options.image_size} x {options.image_size} in {data.data_root} ({state})\n'
        f'  python tools/train.py CONFIG --cfg-options data_root={data.data_root.as_posix()}'
    )


def main() -> int:
    """Render and print where the data are; return 2 if the options or the folders do not allow it."""
    args = parse_args()
    start = time.perf_counter()
    try:
        results = make_mini_data(
            args.out,
            args.only,
            seed=args.seed,
            image_size=args.image_size,
            train_images=args.train_images,
            val_images=args.val_images,
            force=args.force,
            progress=lambda count, title: show_progress(range(count), f'rendering {count} images of {title}'),
        )
    except (ValueError, FileExistsError) as error:
        print(f'\n{error}', file=sys.stderr)
        return 2
    print('\n'.join(describe(data) for data in results))
    print(f'{time.perf_counter() - start:.0f} seconds')
    return 0


if __name__ == '__main__':
    raise SystemExit(main())
