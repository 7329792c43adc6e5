"""Which token sees which in ES2D, SS2D and Vim: ``python tools/analysis/scan_order.py --out scan_order.png``.

The order in which a route visits the tokens is not assumed here. Every route is run on its own through
:func:`mmevm.ops.visual_scan`, and its Jacobian shows which inputs reach which outputs; a token's position on the route
is the number of tokens that it sees.
"""

from __future__ import annotations

import argparse
import runpy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

try:
    import matplotlib
    import numpy as np
    import torch
    from matplotlib.axes import Axes
    from matplotlib.collections import LineCollection
    from matplotlib.colors import LinearSegmentedColormap
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.patches import Circle, Patch, Rectangle
    from torch import Tensor

    from mmevm.errors import UsageError, exit_status
    from mmevm.layers import mixers, vim
    from mmevm.layers.vim import middle
    from mmevm.ops import Route, es2d_routes, visual_scan
except ModuleNotFoundError as error:
    runpy.run_path(str(Path(__file__).parents[1] / '_interpreter.py'))['stop'](error)

_LARGEST_MAP = 24
# So close to zero that no state decays below the resolution of float64.
_DECAY = -1e-6
# Orange and blue, which colour-blind readers can distinguish, and greys.
_SEEN, _LATER, _OUTSIDE, _EDGE = '#f5b041', '#dcdcdc', '#ffffff', '#b0b0b0'
_WALK = 'Blues'
_LEGEND = {'sees these tokens': _SEEN, 'come later on the route': _LATER, 'not on the route': _OUTSIDE}


@dataclass(frozen=True)
class Scan:
    """A scan of a backbone.

    Attributes:
        backbone (str): Backbone that has it.
        routes (list[Route]): As the layers pass them to the operator.
        step (int): As the layers pass it to the operator.
        column (bool): The map's tokens are one column, row after row, with the class token in the middle.
    """

    backbone: str
    routes: list[Route]
    step: int = 1
    column: bool = False

    def shape(self, height: int, width: int) -> tuple[int, int]:
        """Return the shape of the operator's map, with a class token if there is one."""
        return (1, height * width + 1) if self.column else (height, width)

    def token(self, height: int, width: int, row: int, col: int) -> int:
        """Return the index of a cell's token among all tokens."""
        index = row * width + col
        return index + (self.column and index >= middle((height, width)))


SCANS = {
    'ES2D': Scan('EfficientVMamba', es2d_routes(2), step=2),
    'SS2D': Scan('VMamba', mixers.ROUTES),
    'Vim': Scan('Vim', vim.ROUTES, column=True),
}
"""The scans of the three backbones."""


def reach(scan: Scan, height: int, width: int) -> np.ndarray:
    """Measure which tokens' inputs reach which tokens' outputs through each route.

    Args:
        scan (Scan): The scan.
        height (int): Rows H of the map, at least 1.
        width (int): Columns W of the map, at least 1.

    Returns:
        ndarray[K, T, T]: bool; ``[k, i, j]`` says whether token i's output depends on token j's input through route k.
        T is H * W, and one more where there is a class token.

    Raises:
        ValueError: If the map has no cells.
    """
    if height < 1 or width < 1:
        raise ValueError(f'the map must have at least one row and one column, got {height} x {width}')
    shape = scan.shape(height, width)
    return np.stack([_reach_of_route(route, scan, shape) for route in scan.routes])


def _reach_of_route(route: Route, scan: Scan, shape: tuple[int, int]) -> np.ndarray:
    """Use one channel, one state and positive weights, so that nothing cancels. Returns: ndarray[T, T], bool."""
    sets, projections = (1 + max(getattr(r, field) for r in scan.routes) for field in ('parameters', 'projection'))
    ones = torch.ones(1, *shape, projections, 3, dtype=torch.float64)
    dt_weight = torch.ones(sets, 1, 1, dtype=torch.float64)

    def run(x: Tensor) -> Tensor:
        maps = x.view(1, *shape, 1)
        return visual_scan(maps, ones, dt_weight, _DECAY * dt_weight, routes=[route], step=scan.step).flatten()

    tokens = torch.ones(shape[0] * shape[1], dtype=torch.float64)
    return (torch.autograd.functional.jacobian(run, tokens) != 0).numpy()


def positions(reached: np.ndarray) -> np.ndarray:
    """Return each token's position on one route, which is the number of other tokens that it sees.

    Args:
        reached (ndarray[T, T]): One route of :func:`reach`.

    Returns:
        ndarray[T]: int, from 0; -1 for tokens that the route does not visit. Zero tokens past the map's edge, over
        which the state decays, are not counted.
    """
    return reached.sum(axis=1) - 1


def centres(scan: Scan, height: int, width: int) -> np.ndarray:
    """Return where tokens are drawn, ndarray[T, 2] of x and y in cells; the class token is between its neighbours."""
    y, x = np.divmod(np.arange(height * width), width)
    cells = np.stack([x, y], axis=1).astype(float)
    if not scan.column:
        return cells
    m = middle((height, width))
    return np.insert(cells, m, cells[m - 1 : m + 1].mean(axis=0), axis=0)


def _title(route: Route, scan: Scan) -> str:
    direction = 'down the columns' if route.column_major else 'along the rows'
    if scan.step > 1:
        return f'phase ({route.row}, {route.col})\n{direction}'
    return f'{direction},\n{"backward" if route.reverse else "forward"}'


def _draw_tokens(axes: Axes, at: np.ndarray, colors: list, query: int, token: int | None) -> None:
    """Draw the cells in their colours, the class token as a circle, and a heavy line around the query."""

    # The query last, so that its outline covers its neighbours'.
    for index in sorted(range(len(at)), key=lambda i: (i == token, i == query)):
        x, y = at[index]
        style = {
            'facecolor': colors[index],
            'edgecolor': 'black' if index in (query, token) else _EDGE,
            'linewidth': 1.8 if index == query else 0.8 if index == token else 0.6,
            'zorder': 2 + (index == query) + 2 * (index == token),
        }
        shape = Circle((x, y), 0.27, **style) if index == token else Rectangle((x - 0.5, y - 0.5), 1, 1, **style)
        axes.add_patch(shape)
    axes.set(xlim=(at[:, 0].min() - 0.6, at[:, 0].max() + 0.6), ylim=(at[:, 1].max() + 0.6, at[:, 1].min() - 0.6))
    axes.set_aspect('equal')
    axes.axis('off')


def _draw_walk(axes: Axes, walk: np.ndarray) -> None:
    """Draw a line from a light dot at the first token to a dark arrow head at the last."""

    shades = matplotlib.colormaps[_WALK](np.linspace(0.35, 1, max(len(walk) - 1, 1)))
    segments = np.stack([walk[:-1], walk[1:]], axis=1)
    axes.add_collection(LineCollection(segments, colors=shades, linewidths=1.3, zorder=8, capstyle='round'))
    axes.plot(*walk[0], 'o', color=shades[0], markersize=4, zorder=9)
    if len(walk) > 1:
        ends = {'xy': walk[-1], 'xytext': walk[-2]}
        arrow = {'arrowstyle': '-|>', 'color': shades[-1], 'shrinkA': 0, 'shrinkB': 0, 'mutation_scale': 9}
        axes.annotate('', **ends, arrowprops=arrow, zorder=9)


def _draw_route(axes: Axes, reached: np.ndarray, at: np.ndarray, query: int, token: int | None) -> None:
    position = positions(reached)
    visited = position >= 0
    colors = [_SEEN if seen else _LATER if on else _OUTSIDE for seen, on in zip(reached[query], visited, strict=True)]
    _draw_tokens(axes, at, colors, query, token)
    _draw_walk(axes, at[np.argsort(position)][-visited.sum() :])


def _draw_sum(axes: Axes, counts: np.ndarray, at: np.ndarray, query: int, token: int | None) -> None:
    """Write into each cell how many routes lead from it to the query."""

    shades = LinearSegmentedColormap.from_list('seen', [_OUTSIDE, _SEEN])
    _draw_tokens(axes, at, [shades(min(count, 2) / 2) for count in counts], query, token)
    for i, ((x, y), count) in enumerate(zip(at, counts, strict=True)):
        if count:  # the class token covers its neighbours' figures, not the reverse
            axes.text(x, y, str(count), ha='center', va='center', fontsize=7.5, zorder=10 if i == token else 3.5)


def _draw_scan(panels: np.ndarray, scan: Scan, size: tuple[int, int], query: tuple[int, int]) -> None:
    """Draw a row of the figure: the routes from the left, their sum in the last panel."""
    reached, at, index = reach(scan, *size), centres(scan, *size), scan.token(*size, *query)
    token = middle(size) if scan.column else None
    for axes, route, one in zip(panels, scan.routes, reached, strict=False):
        _draw_route(axes, one, at, index, token)
        axes.set_title(_title(route, scan), fontsize=8.5)
    for axes in panels[len(scan.routes) : -1]:
        axes.axis('off')
    _draw_sum(panels[-1], reached[:, index].sum(axis=0), at, index, token)
    panels[-1].set_title('routes that lead\nto the token', fontsize=8.5)


def _draw_legend(figure: Figure) -> None:

    handles = [Patch(facecolor=_OUTSIDE, edgecolor='black', linewidth=1.8, label='this token …')]
    handles += [Patch(facecolor=color, edgecolor=_EDGE, label=label) for label, color in _LEGEND.items()]
    handles.append(Line2D([], [], marker='o', ms=7, mfc='white', mec='black', linestyle='', label='class token'))
    style = {'frameon': False, 'fontsize': 8.5, 'columnspacing': 1.4, 'handletextpad': 0.5}
    figure.legend(handles=handles, loc='outside lower center', ncols=len(handles), **style)


def draw_scan_order(
    scans: Mapping[str, Scan], path: str | Path, size: tuple[int, int] = (6, 6), query: tuple[int, int] = (3, 4)
) -> str:
    """Draw every route of every scan, what one token sees through it, and how many routes lead there from each token.

    Args:
        scans (Mapping[str, Scan]): By name, such as :data:`SCANS`; one row of the figure each.
        path (str | Path): PNG file to write.
        size (tuple[int, int]): Rows and columns of the map, at least two cells.
        query (tuple[int, int]): Row and column of the token that sees.

    Returns:
        str: Absolute path of the PNG.

    Raises:
        ValueError: If the map has fewer than two cells, or the query is outside it.
    """
    if min(size) < 1 or max(size) < 2:
        raise ValueError(f'`size` must give at least two cells, got {size[0]} x {size[1]}')
    if not (0 <= query[0] < size[0] and 0 <= query[1] < size[1]):
        raise ValueError(f'`query` must be in the map of {size[0]} x {size[1]} cells, got {query}')
    columns = 1 + max(len(scan.routes) for scan in scans.values())
    height = 0.35 + len(scans) * (0.55 + 1.4 * size[0] / size[1])
    figure = Figure(figsize=(1.6 * columns, height), dpi=200, layout='constrained')
    for panels, (name, scan) in zip(figure.subplots(len(scans), columns, squeeze=False), scans.items(), strict=True):
        _draw_scan(panels, scan, size, query)
        label = name if name == scan.backbone else f'{name}\n({scan.backbone})'
        style = {'rotation': 90, 'ha': 'right', 'va': 'center', 'ma': 'center', 'fontsize': 9.5, 'weight': 'bold'}
        panels[0].text(-0.1, 0.5, label, transform=panels[0].transAxes, **style)
    _draw_legend(figure)
    figure.savefig(path)
    return str(Path(path).absolute())


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line; None means the process's own."""
    parser = argparse.ArgumentParser(
        description='Draw the routes of the scans of EfficientVMamba (ES2D), VMamba (SS2D) and Vim over a small map, '
        'and which tokens a chosen one sees through each of them. Both are measured on the operator, by its gradients.'
    )
    cells = {'type': int, 'nargs': 2}
    parser.add_argument('--map', **cells, default=(6, 6), metavar=('ROWS', 'COLUMNS'), help='its size (default: 6 6)')
    parser.add_argument('--token', **cells, metavar=('ROW', 'COLUMN'), help='which one (default: near the middle)')
    parser.add_argument('--out', default='scan_order.png', metavar='FILE.png', help='default: %(default)s')
    args = parser.parse_args(argv)
    args.token = args.token or (args.map[0] // 2, 2 * args.map[1] // 3)
    return args


def run(args: argparse.Namespace) -> None:
    """Draw the figure and print what the token sees."""
    size, token = tuple(args.map), tuple(args.token)
    if max(size) > _LARGEST_MAP:
        limit = f'{_LARGEST_MAP} x {_LARGEST_MAP}'
        raise UsageError(f'--map must be at most {limit}, so that its cells can be seen, got {args.map}')
    try:
        path = draw_scan_order(SCANS, args.out, size, token)
    except (ValueError, OSError) as error:
        raise UsageError(f'{args.out} cannot be drawn: {error}') from error
    print(f'Of a map of {size[0]} x {size[1]}, the token of row {token[0]} and column {token[1]} sees')
    for name, scan in SCANS.items():
        seen = reach(scan, *size)[:, scan.token(*size, *token)]
        routes = ', '.join(str(count) for count in seen.sum(axis=1))
        print(f'  {name:5s} {seen.any(axis=0).sum():4d} of {seen.shape[1]:4d} tokens; through each route: {routes}')
    print(path)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    args = parse_args(argv)
    return exit_status(lambda: run(args))


if __name__ == '__main__':
    raise SystemExit(main())
