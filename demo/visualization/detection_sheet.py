"""A sheet of pictures, each with its ground truth at the left and a detector's boxes, or masks, at the right.

The input is files in COCO's own formats, annotations and results, so that any detector's output can be drawn.
"""

import json
import os
from collections import defaultdict
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

_PALETTE = (
    '#e6194b',
    '#1f77e6',
    '#2ca02c',
    '#f58231',
    '#911eb4',
    '#0fa3a3',
    '#d81bb0',
    '#8c6d1f',
    '#5b5bd6',
    '#b5451b',
)
_PICTURE = 320
_GAP = 12
_HEADER = 30
_OPACITY = 0.5


@dataclass(frozen=True)
class Box:
    """One box to draw: corner and size in pixels of the original picture, class name, and a score for predictions.

    ``mask``, bool and as large as the picture, is laid over it in the box's colour.
    """

    xywh: tuple[float, float, float, float]
    name: str
    color: str
    score: float | None = None
    mask: np.ndarray | None = None

    @property
    def label(self) -> str:
        return self.name if self.score is None else f'{self.name} {self.score:.2f}'


@cache
def get_font(size: int) -> ImageFont.FreeTypeFont:
    """The font of all labels, at a size in pixels."""
    from matplotlib.font_manager import findfont

    return ImageFont.truetype(findfont('DejaVu Sans'), size)


def _overlap(a: tuple, b: tuple) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _label_place(corners: tuple, text_size: tuple, side: tuple, taken: list[tuple]) -> tuple:
    """Choose where a label stands: the first place at its box that is in the picture and overlaps no other label."""
    x0, y0, x1, y1 = corners
    width, height = text_size
    places = [
        (x0, y0 - height),
        (x1 - width, y0 - height),
        (x0, y1),
        (x1 - width, y1),
        (x0, y0),
        (x1 - width, y0),
        (x0, y1 - height),
    ]
    inside = [(min(max(x, 0), side[0] - width), min(max(y, 0), side[1] - height)) for x, y in places]
    rectangles = [(x, y, x + width, y + height) for x, y in inside]
    free = [rectangle for rectangle in rectangles if not any(_overlap(rectangle, other) for other in taken)]
    return (free or rectangles)[0]


def draw_boxes(picture: Image.Image, boxes: list[Box], scale: float) -> Image.Image:
    """Enlarge a picture and draw boxes with labels on it.

    Args:
        picture (Image): The original picture.
        boxes (list[Box]): In its pixels.
        scale (float): Factor of enlargement.

    Returns:
        Image: A new RGB picture.
    """
    size = round(picture.width * scale), round(picture.height * scale)
    out = picture.convert('RGB').resize(size, Image.Resampling.BICUBIC)
    for box in boxes:
        if box.mask is not None:
            alpha = Image.fromarray((255 * _OPACITY * box.mask).astype(np.uint8)).resize(size)
            out.paste(box.color, (0, 0, *size), alpha)
    draw = ImageDraw.Draw(out)
    font = get_font(13)
    corners = [(x * scale, y * scale, (x + w) * scale, (y + h) * scale) for x, y, w, h in (box.xywh for box in boxes)]
    for box, corner in zip(boxes, corners, strict=True):
        draw.rectangle(corner, outline=box.color, width=3)
    taken: list[tuple] = []
    for box, corner in zip(boxes, corners, strict=True):
        left, _, right, _ = draw.textbbox((0, 0), box.label, font=font)
        place = _label_place(corner, (right - left + 8, 19), size, taken)
        taken.append(place)
        draw.rectangle(place, fill=box.color)
        draw.text((place[0] + 4, place[1] + 2), box.label, fill='white', font=font)
    return out


def _pair(image_path: str, truth: list[Box], predicted: list[Box]) -> Image.Image:
    with Image.open(image_path) as picture:
        scale = _PICTURE / max(picture.size)
        pair = Image.new('RGB', (2 * _PICTURE + 4, _PICTURE), '#eeeeee')
        for column, boxes in enumerate((truth, predicted)):
            drawn = draw_boxes(picture, boxes, scale)
            pair.paste(drawn, (column * (_PICTURE + 4) + (_PICTURE - drawn.width) // 2, (_PICTURE - drawn.height) // 2))
    return pair


def _compose(pairs: list[Image.Image], columns: int) -> Image.Image:
    rows = -(-len(pairs) // columns)
    width, height = pairs[0].size
    sheet = Image.new('RGB', (columns * (width + _GAP) + _GAP, _HEADER + rows * (height + _GAP) + 2), 'white')
    draw = ImageDraw.Draw(sheet)
    for column in range(columns):
        left = _GAP + column * (width + _GAP)
        for index, text in enumerate(('ground truth', 'prediction')):
            draw.text((left + index * (_PICTURE + 4) + 2, 7), text, fill='#222222', font=get_font(15))
    for index, pair in enumerate(pairs):
        row, column = divmod(index, columns)
        sheet.paste(pair, (_GAP + column * (width + _GAP), _HEADER + row * (height + _GAP)))
    return sheet


def _mask(segmentation: Any, size: tuple[int, int]) -> np.ndarray:
    """Decode COCO's polygons or run lengths to bool [height, width]."""
    from pycocotools import mask as coding

    if isinstance(segmentation, list):
        segmentation = coding.merge(coding.frPyObjects(segmentation, *size))
    return coding.decode(segmentation).astype(bool)


def _group(entries: list[dict], names: dict[int, str], sizes: dict[int, tuple[int, int]] | None) -> dict:
    """Turn COCO annotations or results into boxes by picture; a class keeps its colour in both.

    With ``sizes``, (height, width) by picture, the masks are drawn too.
    """
    colors = {category: _PALETTE[index % len(_PALETTE)] for index, category in enumerate(sorted(names))}
    boxes = defaultdict(list)
    for entry in entries:
        category = entry['category_id']
        mask = _mask(entry['segmentation'], sizes[entry['image_id']]) if sizes else None
        boxes[entry['image_id']].append(
            Box(tuple(entry['bbox']), names[category], colors[category], entry.get('score'), mask)
        )
    return boxes


def _read(path: str | os.PathLike) -> Any:
    with open(path, encoding='utf-8') as file:
        return json.load(file)


def draw_detection_sheet(
    annotations: str | os.PathLike,
    results: str | os.PathLike,
    images: str | os.PathLike,
    path: str | os.PathLike,
    count: int = 8,
    columns: int = 2,
    score_threshold: float = 0.3,
    masks: bool = False,
) -> str:
    """Draw the first pictures of a data set with ground truth and predictions.

    Args:
        annotations (str | os.PathLike): COCO annotation file.
        results (str | os.PathLike): COCO results file, as ``CocoMetric`` writes with ``outfile_prefix``.
        images (str | os.PathLike): Folder of the pictures.
        path (str | os.PathLike): PNG file to write.
        count (int): Number of pictures.
        columns (int): Pairs in a row.
        score_threshold (float): Predictions below it are left out.
        masks (bool): Draw the objects' masks too; the results file must be one of segmentations.

    Returns:
        str: Absolute path of the PNG.

    Raises:
        ValueError: The annotation file lists no pictures.
    """
    truth = _read(annotations)
    chosen = truth['images'][:count]
    if not chosen:
        raise ValueError(f'{annotations} must list at least one image, got none')
    used = {entry['category_id'] for entry in truth['annotations']}
    predictions = [entry for entry in _read(results) if entry['score'] >= score_threshold]
    used |= {entry['category_id'] for entry in predictions}
    names = {category['id']: category['name'] for category in truth['categories'] if category['id'] in used}
    sizes = {image['id']: (image['height'], image['width']) for image in chosen} if masks else None
    shown = {image['id'] for image in chosen}
    true_boxes, predicted_boxes = (
        _group([entry for entry in entries if entry['image_id'] in shown], names, sizes)
        for entries in (truth['annotations'], predictions)
    )
    pairs = [
        _pair(os.path.join(images, image['file_name']), true_boxes[image['id']], predicted_boxes[image['id']])
        for image in chosen
    ]
    _compose(pairs, min(columns, len(pairs))).save(path)
    return os.path.abspath(path)
