"""Figures of the benchmarks."""

import itertools
from pathlib import Path
from typing import Any

import matplotlib
import networks
import timing

matplotlib.use('Agg')

_OURS = ('tab:blue', 'tab:orange', 'tab:green', 'tab:red', 'tab:purple', 'tab:brown', 'tab:pink')
_OTHERS = ('black', 'dimgray', 'darkgray', 'tab:olive', 'tab:cyan')

# Label and scale of the values in a row.
_PANELS = {'rate': ('images / s', 'log'), 'per_pixel': ('ns / pixel', 'linear'), 'peak_mib': ('peak, MiB', 'log')}


def label(row: timing.Row) -> str:
    """Return a network's name for readers."""
    return f'{row["model"]}, composed' if row.get('scan') == 'composed' else row['model'].split('_patch')[0]


def _styles(rows: list[timing.Row]) -> dict[str, dict[str, Any]]:
    """Return styles by label: ours in strong lines, composed dashed in the same colour; others thin and dotted."""
    colors = {True: itertools.cycle(_OURS), False: itertools.cycle(_OTHERS)}
    models = {model: next(colors[networks.is_ours(model)]) for model in dict.fromkeys(row['model'] for row in rows)}
    styles = {}
    for row in rows:
        ours, composed = networks.is_ours(row['model']), row.get('scan') == 'composed'
        line = ('--' if composed else '-') if ours else ':'
        styles[label(row)] = {'color': models[row['model']], 'linestyle': line, 'linewidth': 2 if ours else 1.5}
    return styles


def over_resolution(path: Path, rows: list[timing.Row], title: str) -> None:
    """Draw images per second, cost per pixel and, where it was measured, peak memory: a line for each network.

    Args:
        path (Path): The PNG file.
        rows (list[Row]): With ``model``, ``resolution``, ``rate`` and ``per_pixel``; perhaps ``scan``, ``peak_mib``.
        title (str): Heading.
    """
    from matplotlib import pyplot as plt

    keys = [key for key in _PANELS if all(row.get(key) for row in rows)]
    figure, panels = plt.subplots(1, len(keys), figsize=(5.5 * len(keys) + 1, 5), layout='constrained')
    for axes, key in zip(panels, keys, strict=True):
        for name, style in _styles(rows).items():
            points = sorted((row['resolution'], row[key]) for row in rows if label(row) == name)
            axes.plot(*zip(*points, strict=True), marker='o', markersize=4, label=name, **style)
        text, scale = _PANELS[key]
        axes.set(xlabel='image side, pixels', ylabel=text, xscale='log', yscale=scale)
        _ticks(axes, sorted({row['resolution'] for row in rows}))
    panels[-1].legend(loc='center left', bbox_to_anchor=(1, 0.5), frameon=False)
    _save(figure, path, title)


def _ticks(axes: Any, sides: list[int]) -> None:
    """Plain numbers on both axes; a linear one begins at zero."""
    from matplotlib.ticker import LogLocator, NullLocator, ScalarFormatter

    axes.set_xticks(sides, map(str, sides))
    axes.minorticks_off()
    if axes.get_yscale() == 'log':
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(ScalarFormatter())
        axes.yaxis.set_minor_locator(NullLocator())
    else:
        axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.spines[['top', 'right']].set_visible(False)


def throughput(path: Path, rows: list[timing.Row], title: str) -> None:
    """Draw a bar per network, in its faster layout, for training and for inference."""
    from matplotlib import pyplot as plt

    labels = list(dict.fromkeys(map(label, rows)))[::-1]
    figure, panels = plt.subplots(1, 2, figsize=(12, 1 + 0.4 * len(labels)), sharey=True, layout='constrained')
    for axes, which in zip(panels, ('training', 'inference'), strict=True):
        best = [max(row[f'{which}_rate'] for row in rows if label(row) == name) for name in labels]
        colors = ['tab:blue' if networks.is_ours(x) and 'composed' not in x else 'lightgray' for x in labels]
        bars = axes.barh(labels, best, color=colors)
        axes.bar_label(bars, [f'{value:,.0f}' for value in best], padding=4)
        axes.margins(x=0.15)
        axes.set(xlabel='images / s', title=which)
        axes.spines[['top', 'right']].set_visible(False)
    _save(figure, path, title)


def latency(path: Path, rows: list[timing.Row], title: str) -> None:
    """Draw a bar per network, in its faster layout, with its quartiles."""
    from matplotlib import pyplot as plt

    lines = _fastest(rows)
    medians = [row['median'] for row in lines]
    spread = [[row['median'] - row['p25'] for row in lines], [row['p75'] - row['median'] for row in lines]]
    ours = [networks.is_ours(row['model']) for row in lines]
    labels = [x['model'] if own else f'{x["model"]} ({x["layout"]})' for x, own in zip(lines, ours, strict=True)]
    figure, axes = plt.subplots(figsize=(8, 0.8 + 0.4 * len(lines)), layout='constrained')
    colors = ['tab:blue' if own else 'lightgray' for own in ours]
    bars = axes.barh(labels, medians, xerr=spread, color=colors, ecolor='dimgray', capsize=2)
    axes.bar_label(bars, [f'{value:.1f}' for value in medians], padding=6)
    axes.margins(x=0.12)
    axes.set(xlabel='median, ms')
    axes.spines[['top', 'right']].set_visible(False)
    _save(figure, path, title)


def _fastest(rows: list[timing.Row]) -> list[timing.Row]:
    """Return each network's fastest line in float32 without a compiler, the slowest network first."""
    eager = [row for row in rows if ',' not in row['layout']]
    slowest_first = sorted(eager, key=lambda row: -row['median'])
    return sorted({row['model']: row for row in slowest_first}.values(), key=lambda row: -row['median'])


def accuracy(path: Path, rows: list[timing.Row], title: str) -> None:
    """Draw the accuracy that papers state over each network's median latency in its fastest line."""
    from matplotlib import pyplot as plt
    from matplotlib.transforms import Bbox

    figure, axes = plt.subplots(figsize=(8, 5.5), layout='constrained')
    shown = [row for row in _fastest(rows) if row['top1'] is not None]
    for row in shown:
        own = networks.is_ours(row['model'])
        axes.plot(row['median'], row['top1'], 'o', color='tab:blue' if own else 'gray', markersize=8 if own else 6)
    axes.margins(x=0.2)
    axes.set(xscale='log')
    axes.set_xticks(ticks := [10, 15, 20, 30, 40, 60, 80, 120], map(str, ticks))
    axes.minorticks_off()
    axes.set(xlabel='median, ms', ylabel="top-1 on ImageNet, % (the papers')")
    axes.grid(alpha=0.3)
    axes.spines[['top', 'right']].set_visible(False)
    figure.draw_without_rendering()  # places the axes, and with them what the labels stand beside
    points = axes.transData.transform([(row['median'], row['top1']) for row in shown])
    taken = [Bbox.from_bounds(x - 4, y - 4, 8, 8) for x, y in points]
    for row in shown:
        taken.append(_place_label(axes, row, taken))
    _save(figure, path, title)


def _place_label(axes: Any, row: timing.Row, taken: list[Any]) -> Any:
    """Write a network's name beside its point, off all other names and points. Returns: The box of the text."""
    style = {'weight': 'bold'} if networks.is_ours(row['model']) else {'color': 'dimgray'}
    for x, y in ((6, 4), (6, -11), (-6, 4), (-6, -11)):
        text = axes.annotate(
            label(row),
            (row['median'], row['top1']),
            xytext=(x, y),
            textcoords='offset points',
            fontsize=9,
            ha='left' if x > 0 else 'right',
            **style,
        )
        box = text.get_window_extent()
        if not any(box.overlaps(other) for other in taken):
            return box
        text.remove()
    return axes.add_artist(text).get_window_extent()


def _save(figure: Any, path: Path, title: str) -> None:
    from matplotlib import pyplot as plt

    figure.suptitle(title)
    timing.replace_file(path, lambda draft: figure.savefig(draft, format='png', dpi=150))
    plt.close(figure)
