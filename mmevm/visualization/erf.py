"""Effective receptive fields side by side, random weights above trained ones."""

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from mmevm.analysis.erf import square_sides

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.image import AxesImage

# Everything below this part of the largest contribution has one colour.
_FLOOR = 1e-4
# Even in lightness, for the colour-blind too.
_COLORS = 'magma'
_CAPTION = "edges of the squares that hold half (solid) and 99 % (dashed) of all contributions, in % of the picture's"
_SQUARES = {0.5: '-', 0.99: (0, (3, 2))}


def _draw_square(axes: 'Axes', size: int, side: int, line: object) -> None:
    from matplotlib.patches import Rectangle

    # Around the middle pixel; the whole of an even picture has no middle pixel.
    corner = -0.5 if side == size else size // 2 - side // 2 - 0.5
    inside = {'facecolor': 'none', 'edgecolor': 'white', 'linewidth': 1.4, 'linestyle': line}
    axes.add_patch(Rectangle((corner, corner), side, side, **inside))


def draw_field(axes: 'Axes', scores: np.ndarray) -> 'AxesImage':
    """Draw one panel: contributions (ndarray[S, S]), and the squares of half and of nearly all of them."""
    from matplotlib.colors import LogNorm

    shown = np.clip(scores / scores.max(), _FLOOR, None)
    image = axes.imshow(shown, norm=LogNorm(_FLOOR, 1), cmap=_COLORS, interpolation='nearest')
    sides = square_sides(scores, list(_SQUARES))
    for side, line in zip(sides, _SQUARES.values(), strict=True):
        _draw_square(axes, len(scores), side, line)
    half, most = (100 * side / len(scores) for side in sides)
    axes.set_xlabel(f'half in {half:.0f} %, 99 % in {most:.0f} %', fontsize=8.5)
    return image


def _save(canvas: 'FigureCanvasAgg', path: str | os.PathLike) -> None:
    canvas.draw()
    # The maps are half noise, which PNG does not compress; with a palette the file is a third as large.
    pixels = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert('RGB')
    pixels.quantize(256, Image.Quantize.MAXCOVERAGE).save(path, optimize=True)


def draw_receptive_fields(
    fields: Mapping[str, tuple[np.ndarray, np.ndarray | None]], path: str | os.PathLike, title: str = ''
) -> str:
    """Draw contributions over the picture on a logarithmic scale, relative to the largest of each.

    Args:
        fields (Mapping[str, tuple]): By model's name: contributions (ndarray[S, S]) with random weights, and with
            trained ones or None.
        path (str | os.PathLike): PNG file to write.
        title (str): Heading of the picture.

    Returns:
        str: Absolute path of the PNG.

    Raises:
        ValueError: There is nothing to draw.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if not fields:
        raise ValueError('`fields` must hold at least one model, got none')
    lines = 1 + any(trained is not None for _, trained in fields.values())
    figure = Figure(figsize=(0.9 + 2.35 * len(fields), 0.4 + 2.62 * lines), dpi=150, layout='constrained')
    canvas = FigureCanvasAgg(figure)
    panels = figure.subplots(lines, len(fields), squeeze=False)
    for column, (name, both) in zip(panels.T, fields.items(), strict=True):
        column[0].set_title(name, fontsize=9.5, weight='bold')
        for axes, scores in zip(column, both, strict=False):
            if scores is None:
                axes.axis('off')
                continue
            axes.set(xticks=[], yticks=[])
            image = draw_field(axes, scores)
    for axes, label in zip(panels[:, 0], ('random weights', 'trained weights'), strict=False):
        axes.set_ylabel(label, fontsize=9.5)
    bar = figure.colorbar(image, ax=panels, shrink=0.9, aspect=30, pad=0.01)
    bar.set_label('contribution, of the largest', fontsize=8.5)
    bar.ax.tick_params(labelsize=8.5)
    if len(fields) > 2:  # there is room for it
        figure.supxlabel(_CAPTION, fontsize=8.5)
    figure.suptitle(title, fontsize=9.5)
    _save(canvas, path)
    return os.path.abspath(path)
