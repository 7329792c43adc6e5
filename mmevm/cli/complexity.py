"""``tools/analysis/complexity.py``."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from mmevm.engine.config import read_config
from mmevm.errors import UsageError, exit_status

_ROOT = Path(__file__).resolve().parents[2]
_TABLE = _ROOT / 'docs/reproduction.md'


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description='Count the parameters, FLOPs and activations of configs for one image of the size that the '
        "paper's tables use: 224 x 224 for classification, 1280 x 800 for detection, 2048 x 512 for segmentation. "
        'One multiply-add is one FLOP; see mmevm/analysis/complexity.py for what else counts. Models whose shapes '
        'depend on values, such as DINO, run on the CPU for it, which can take a minute.'
    )
    parser.add_argument('configs', nargs='*', metavar='CONFIG', help='config files')
    parser.add_argument('--size', type=int, nargs=2, metavar=('HEIGHT', 'WIDTH'), help='another image size')
    parser.add_argument(
        '--table',
        nargs='?',
        const=_TABLE,
        type=Path,
        metavar='FILE',
        help="write the comparison with the paper's tables (default: docs/reproduction.md)",
    )
    args = parser.parse_args(argv)
    if not args.configs and not args.table:
        parser.error('name a config, or give --table')
    if args.table and (args.configs or args.size):
        parser.error("--table measures its own configs at the paper's sizes; leave configs and --size out")
    return args


def _print(paths: Sequence[str], size: Sequence[int] | None) -> None:
    from mmevm.analysis import SIZES, measure

    print(f'{"config":44s} {"height x width":>14s} {"params, M":>10s} {"FLOPs, G":>10s} {"activations, M":>15s}')
    for path in paths:
        cfg = read_config(path)
        shape = tuple(size) if size else SIZES.get(cfg.get('default_scope'))
        try:
            cost = measure(cfg, shape)
        except (ValueError, RuntimeError) as error:
            raise UsageError(f'{path}: {error}') from error
        print(
            f'{Path(path).stem:44s} {f"{shape[0]} x {shape[1]}":>14s} {cost.params / 1e6:10.3f} '
            f'{cost.flops / 1e9:10.3f} {cost.activations / 1e6:15.1f}'
        )
        if cost.idle:
            print(f'  only the parameters of {", ".join(cost.idle)} count; this forward pass does not run them')


def write_table(path: Path) -> None:
    """Measure every config that the paper's tables have a counterpart for, and write the comparison to ``path``."""
    from mmevm.analysis import measure, reproduction
    from mmevm.analysis.report import configs

    measured = {name: measure(read_config(_ROOT / 'configs' / f'{name}.py')) for name in configs()}
    path.write_text(reproduction(measured), encoding='utf-8')
    print(f'{len(measured)} configs measured: {path}')


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of ``tools/analysis/complexity.py``; returns the exit status."""
    args = _parse(argv)
    return exit_status(lambda: write_table(args.table) if args.table else _print(args.configs, args.size))
