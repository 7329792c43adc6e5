"""A sheet of pictures, each with its ground truth and a segmentor's labels laid over it, and a legend."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from demo.visualization.detection_sheet import get_font

_PICTURE, _GAP, _HEADER, _LEGEND = 200, 8, 30, 24
_OPACITY = 0.6
# Far apart in hue and in lightness.
_PALETTE = (
    '#e6194b #3cb44b #ffe119 #4363d8 #f58231 #911eb4 #46f0f0 #f032e6 #bcf60c #fabebe #008080 #9a6324 #800000 #aaffc3 '
    '#808000 #000075 #a9a9a9 #e6beff'
).split()


def color_table(labels: Sequence[int]) -> dict[int, tuple[int, int, int]]:
    """A colour for each label, by its place in the sorted labels; 0 to 255."""
    names = (_PALETTE[index % len(_PALETTE)] for index in range(len(labels)))
    return {label: tuple(bytes.fromhex(name[1:])) for label, name in zip(sorted(labels), names, strict=True)}


def overlay(picture: np.ndarray, labels: np.ndarray, colors: Mapping[int, tuple[int, int, int]]) -> np.ndarray:
    """Lay colours over a picture where its labels have one.

    Args:
        picture (ndarray[H, W, 3]): uint8.
        labels (ndarray[H, W]): uint8.
        colors (Mapping[int, tuple[int, int, int]]): By label.

    Returns:
        ndarray[H, W, 3]: uint8.
    """
    out = picture.astype(float)
    for label, color in colors.items():
        where = labels == label
        out[where] = (1 - _OPACITY) * out[where] + _OPACITY * np.array(color)
    return out.round().astype(np.uint8)


def _row(picture: np.ndarray, maps: Sequence[np.ndarray], colors: Mapping[int, tuple]) -> Image.Image:
    row = Image.new('RGB', (3 * _PICTURE + 2 * _GAP, _PICTURE), 'white')
    for column, pixels in enumerate([picture, *(overlay(picture, labels, colors) for labels in maps)]):
        part = Image.fromarray(pixels).resize((_PICTURE, _PICTURE), Image.Resampling.BICUBIC)
        row.paste(part, (column * (_PICTURE + _GAP), 0))
    return row


def _draw_legend(draw: ImageDraw.ImageDraw, top: int, width: int, colors: Mapping, names: Mapping[int, str]) -> None:
    step = 110
    for index, (label, color) in enumerate(colors.items()):
        line, place = divmod(index, width // step)
        x, y = _GAP + place * step, top + line * _LEGEND
        draw.rectangle((x, y + 4, x + 14, y + 18), fill=color)
        draw.text((x + 20, y + 3), names[label], fill='#222222', font=get_font(13))


def _read(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.array(picture)


def draw_segmentation_sheet(
    images: str | os.PathLike,
    truth: str | os.PathLike,
    predicted: str | os.PathLike,
    names: Mapping[int, str],
    path: str | os.PathLike,
    count: int = 8,
) -> str:
    """Draw the first pictures of a folder in two columns.

    Args:
        images (str | os.PathLike): Folder of ``<name>.jpg``.
        truth (str | os.PathLike): Folder of ``<name>.png``, uint8 label maps; 0 is unlabelled.
        predicted (str | os.PathLike): As above, as mmseg's ``IoUMetric`` writes with ``output_dir``.
        names (Mapping[int, str]): Name of every label but 0.
        path (str | os.PathLike): Picture file to write.
        count (int): Number of pictures.

    Returns:
        str: Absolute path of the file.

    Raises:
        ValueError: The folder has no pictures.
    """
    chosen = sorted(Path(images).glob('*.jpg'))[:count]
    if not chosen:
        raise ValueError(f'{images} must hold at least one .jpg, got none')
    maps = [[_read(Path(folder) / f'{file.stem}.png') for folder in (truth, predicted)] for file in chosen]
    colors = color_table(sorted({int(label) for pair in maps for part in pair for label in np.unique(part)} - {0}))
    rows = [_row(_read(file), pair, colors) for file, pair in zip(chosen, maps, strict=True)]
    columns = min(2, len(rows))
    pitch, lines = rows[0].width + 3 * _GAP, -(-len(rows) // columns)
    width, bottom = columns * pitch + _GAP, _HEADER + lines * (_PICTURE + _GAP)
    legend = -(-len(colors) // (width // 110)) * _LEGEND
    sheet = Image.new('RGB', (width, bottom + legend + _GAP), 'white')
    draw = ImageDraw.Draw(sheet)
    for column in range(columns):
        for index, text in enumerate(('picture', 'ground truth', 'prediction')):
            draw.text((_GAP + column * pitch + index * (_PICTURE + _GAP), 7), text, fill='#222222', font=get_font(15))
    for index, row in enumerate(rows):
        line, column = divmod(index, columns)
        sheet.paste(row, (_GAP + column * pitch, _HEADER + line * (_PICTURE + _GAP)))
    _draw_legend(draw, bottom, width, colors, names)
    sheet.save(path)
    return os.path.abspath(path)
