"""``tools/analysis/scan_order.py``."""

import argparse
from collections.abc import Sequence

from mmevm.errors import UsageError, exit_status

_LIMIT = 24


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description='Draw the routes of the scans of EfficientVMamba (ES2D), VMamba (SS2D) and Vim over a small map, '
        'and which tokens a chosen one sees through each of them. Both are measured on the operator, by its gradients.'
    )
    cells = {'type': int, 'nargs': 2}
    parser.add_argument('--map', **cells, default=(6, 6), metavar=('ROWS', 'COLUMNS'), help='its size (default: 6 6)')
    parser.add_argument('--token', **cells, metavar=('ROW', 'COLUMN'), help='who sees (default: near the middle)')
    parser.add_argument('--out', default='scan_order.png', metavar='FILE.png', help='default: %(default)s')
    args = parser.parse_args(argv)
    args.token = args.token or (args.map[0] // 2, 2 * args.map[1] // 3)
    return args


def _print(size: tuple[int, int], token: tuple[int, int]) -> None:
    from mmevm.analysis.scan_order import SCANS, reach

    print(f'Of a map of {size[0]} x {size[1]}, the token of row {token[0]} and column {token[1]} sees')
    for name, scan in SCANS.items():
        seen = reach(scan, *size)[:, scan.token(*size, *token)]
        routes = ', '.join(str(count) for count in seen.sum(axis=1))
        print(f'  {name:5s} {seen.any(axis=0).sum():4d} of {seen.shape[1]:4d} tokens; through each route: {routes}')


def _run(args: argparse.Namespace) -> None:
    from mmevm.analysis.scan_order import SCANS
    from mmevm.visualization.scan_order import draw_scan_order

    size, token = tuple(args.map), tuple(args.token)
    if max(size) > _LIMIT:
        raise UsageError(f'--map must be at most {_LIMIT} x {_LIMIT}, so that its cells can be seen, got {args.map}')
    try:
        path = draw_scan_order(SCANS, args.out, size, token)
    except (ValueError, OSError) as error:
        raise UsageError(f'{args.out} cannot be drawn: {error}') from error
    _print(size, token)
    print(path)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of ``tools/analysis/scan_order.py``; returns the exit status."""
    args = _parse(argv)
    return exit_status(lambda: _run(args))
