"""The routes of scans over a small map, and the tokens that one token sees."""

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from mmevm.analysis.scan_order import Scan, places, reach
from mmevm.layers.vim import middle
from mmevm.ops import Route

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Orange and blue, which the colour-blind tell apart, and greys.
_SEEN, _LATER, _OUTSIDE, _EDGE = '#f5b041', '#dcdcdc', '#ffffff', '#b0b0b0'
_WALK = 'Blues'
_LEGEND = {
    'sees these tokens': _SEEN,
    'come later on the route': _LATER,
    'not on the route': _OUTSIDE,
}


def centres(scan: Scan, height: int, width: int) -> np.ndarray:
    """Where the tokens of a map are drawn; the class token stands between the two that it comes between.

    Args:
        scan (Scan): The scan.
        height (int): Rows H of the map.
        width (int): Columns W of the map; H * W is at least 2.

    Returns:
        ndarray[T, 2]: x and y, in cells.
    """
    y, x = np.divmod(np.arange(height * width), width)
    cells = np.stack([x, y], axis=1).astype(float)
    if not scan.column:
        return cells
    m = middle((height, width))
    return np.insert(cells, m, cells[m - 1 : m + 1].mean(axis=0), axis=0)


def _title(route: Route, scan: Scan) -> str:
    line = 'down the columns' if route.column_major else 'along the rows'
    if scan.step > 1:
        return f'phase ({route.row}, {route.col})\n{line}'
    return f'{line},\n{"backward" if route.reverse else "forward"}'


def _draw_tokens(axes: 'Axes', at: np.ndarray, colors: list, query: int, token: int | None) -> None:
    """The cells in their colours, the class token as a circle, and a heavy line around the query."""
    from matplotlib.patches import Circle, Rectangle

    # The query last, so that its outline lies over its neighbours'.
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


def _draw_walk(axes: 'Axes', walk: np.ndarray) -> None:
    """A line through the tokens, light at the first and dark at the last, with a dot and an arrow head there."""
    import matplotlib
    from matplotlib.collections import LineCollection

    shades = matplotlib.colormaps[_WALK](np.linspace(0.35, 1, max(len(walk) - 1, 1)))
    segments = np.stack([walk[:-1], walk[1:]], axis=1)
    axes.add_collection(LineCollection(segments, colors=shades, linewidths=1.3, zorder=8, capstyle='round'))
    axes.plot(*walk[0], 'o', color=shades[0], markersize=4, zorder=9)
    if len(walk) > 1:
        ends = {'xy': walk[-1], 'xytext': walk[-2]}
        arrow = {'arrowstyle': '-|>', 'color': shades[-1], 'shrinkA': 0, 'shrinkB': 0, 'mutation_scale': 9}
        axes.annotate('', **ends, arrowprops=arrow, zorder=9)


def _draw_route(axes: 'Axes', reached: np.ndarray, at: np.ndarray, query: int, token: int | None) -> None:
    place = places(reached)
    visited = place >= 0
    colors = [_SEEN if seen else _LATER if on else _OUTSIDE for seen, on in zip(reached[query], visited, strict=True)]
    _draw_tokens(axes, at, colors, query, token)
    _draw_walk(axes, at[np.argsort(place)][-visited.sum() :])


def _draw_sum(axes: 'Axes', counts: np.ndarray, at: np.ndarray, query: int, token: int | None) -> None:
    """How many routes lead from each token to the query."""
    from matplotlib.colors import LinearSegmentedColormap

    shades = LinearSegmentedColormap.from_list('seen', [_OUTSIDE, _SEEN])
    _draw_tokens(axes, at, [shades(min(count, 2) / 2) for count in counts], query, token)
    for i, ((x, y), count) in enumerate(zip(at, counts, strict=True)):
        if count:  # the class token covers its neighbours' figures, not they its
            axes.text(x, y, str(count), ha='center', va='center', fontsize=7.5, zorder=10 if i == token else 3.5)


def _draw_scan(panels: np.ndarray, scan: Scan, size: tuple[int, int], query: tuple[int, int]) -> None:
    """A line of the figure: the routes from the left, their sum in the last panel."""
    reached, at, index = reach(scan, *size), centres(scan, *size), scan.token(*size, *query)
    token = middle(size) if scan.column else None
    for axes, route, one in zip(panels, scan.routes, reached, strict=False):
        _draw_route(axes, one, at, index, token)
        axes.set_title(_title(route, scan), fontsize=8.5)
    for axes in panels[len(scan.routes) : -1]:
        axes.axis('off')
    _draw_sum(panels[-1], reached[:, index].sum(axis=0), at, index, token)
    panels[-1].set_title('routes that lead\nto the token', fontsize=8.5)


def _legend(figure: 'Figure') -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles = [Patch(facecolor=_OUTSIDE, edgecolor='black', linewidth=1.8, label='this token …')]
    handles += [Patch(facecolor=color, edgecolor=_EDGE, label=label) for label, color in _LEGEND.items()]
    handles.append(
        Line2D(
            [],
            [],
            marker='o',
            markersize=7,
            markerfacecolor='white',
            markeredgecolor='black',
            linestyle='',
            label='class token',
        )
    )
    figure.legend(
        handles=handles,
        loc='outside lower center',
        ncols=len(handles),
        frameon=False,
        fontsize=8.5,
        columnspacing=1.4,
        handletextpad=0.5,
    )


def draw_scan_order(
    scans: Mapping[str, Scan],
    path: str | os.PathLike,
    size: tuple[int, int] = (6, 6),
    query: tuple[int, int] = (3, 4),
) -> str:
    """Draw every route of every scan, what one token sees through it, and how many routes lead there from each token.

    Args:
        scans (Mapping[str, Scan]): By name, such as :data:`mmevm.analysis.SCANS`; one line of the figure each.
        path (str | os.PathLike): PNG file to write.
        size (tuple[int, int]): Rows and columns of the map, at least two cells.
        query (tuple[int, int]): Row and column of the token that looks.

    Returns:
        str: Absolute path of the PNG.

    Raises:
        ValueError: The map has fewer than two cells, or the query lies outside it.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if min(size) < 1 or max(size) < 2:
        raise ValueError(f'`size` must give at least two cells, got {size[0]} x {size[1]}')
    if not (0 <= query[0] < size[0] and 0 <= query[1] < size[1]):
        raise ValueError(f'`query` must lie in the map of {size[0]} x {size[1]} cells, got {query}')
    columns = 1 + max(len(scan.routes) for scan in scans.values())
    height = 0.35 + len(scans) * (0.55 + 1.4 * size[0] / size[1])
    figure = Figure(figsize=(1.6 * columns, height), dpi=200, layout='constrained')
    FigureCanvasAgg(figure)
    for panels, (name, scan) in zip(figure.subplots(len(scans), columns, squeeze=False), scans.items(), strict=True):
        _draw_scan(panels, scan, size, query)
        label = name if name == scan.backbone else f'{name}\n({scan.backbone})'
        panels[0].text(
            -0.1,
            0.5,
            label,
            rotation=90,
            ha='right',
            va='center',
            ma='center',
            fontsize=9.5,
            weight='bold',
            transform=panels[0].transAxes,
        )
    _legend(figure)
    figure.savefig(path)
    return os.path.abspath(path)
