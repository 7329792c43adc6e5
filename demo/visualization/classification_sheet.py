"""A sheet of pictures, each with the five classes that a classifier finds likeliest."""

import os
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw

from demo.visualization.detection_sheet import get_font

_PICTURE, _BARS, _GAP, _ROW = 140, 250, 14, 26
_RIGHT, _WRONG, _OTHER = '#2a9d3a', '#d62728', '#9aa5b1'


@dataclass(frozen=True)
class Classified:
    """One picture with its class and a classifier's scores.

    Args:
        path (str): The picture.
        label (int): Its true class.
        scores (Sequence[float]): One score a class, summing to 1.
    """

    path: str
    label: int
    scores: Sequence[float]


def top_classes(scores: Sequence[float], count: int = 5) -> list[int]:
    """The classes of the highest scores, the highest first."""
    return sorted(range(len(scores)), key=lambda index: -scores[index])[:count]


def _card(item: Classified, names: Sequence[str]) -> Image.Image:
    """The picture, and at its right a bar for each of the five; green is the true class."""
    card = Image.new('RGB', (_PICTURE + _BARS, _PICTURE), 'white')
    with Image.open(item.path) as picture:
        card.paste(picture.convert('RGB').resize((_PICTURE, _PICTURE), Image.Resampling.BICUBIC))
    draw = ImageDraw.Draw(card)
    for row, index in enumerate(top_classes(item.scores)):
        left, top = _PICTURE + 10, row * _ROW + 6
        color = _RIGHT if index == item.label else _WRONG if row == 0 else _OTHER
        width = round(item.scores[index] * (_BARS - 60))
        draw.text((left, top), names[index], fill='#222222', font=get_font(12))
        draw.rectangle((left, top + 15, left + max(width, 1), top + 20), fill=color)
        draw.text((left + width + 5, top + 10), f'{item.scores[index]:.2f}', fill='#444444', font=get_font(10))
    return card


def draw_classification_sheet(
    items: Sequence[Classified], names: Sequence[str], path: str | os.PathLike, columns: int = 3
) -> str:
    """Draw pictures with their five likeliest classes.

    Args:
        items (Sequence[Classified]): What to draw.
        names (Sequence[str]): Names of all classes.
        path (str | os.PathLike): Picture file to write.
        columns (int): Pictures in a row.

    Returns:
        str: Absolute path of the file.

    Raises:
        ValueError: There is nothing to draw.
    """
    if not items:
        raise ValueError('`items` must hold at least one picture, got none')
    columns = min(columns, len(items))
    rows, width = -(-len(items) // columns), _PICTURE + _BARS + _GAP
    sheet = Image.new('RGB', (columns * width + _GAP, rows * (_PICTURE + _GAP) + _GAP), 'white')
    for index, item in enumerate(items):
        row, column = divmod(index, columns)
        sheet.paste(_card(item, names), (_GAP + column * width, _GAP + row * (_PICTURE + _GAP)))
    sheet.save(path)
    return os.path.abspath(path)
