"""Values of annotations: numbers, flags, and shapes as COCO has them in ``segmentation``."""

import math
from typing import Any

import numpy as np

Box = tuple[float, float, float, float]


def is_number(value: Any) -> bool:
    """Return whether a value is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def is_set(flag: Any) -> bool:
    """Return whether a flag is set, which may be text."""
    return flag not in (None, 0, '', '0') and str(flag).lower() != 'false'


def is_shape(value: Any) -> bool:
    """Return whether a value has the form of a shape: run lengths, or a list of polygons."""
    return isinstance(value, dict) or (
        isinstance(value, list) and bool(value) and all(isinstance(part, list) for part in value)
    )


def shape_box(shape: Any) -> Box | None:
    """Return x, y, width and height of what a shape covers; ``None`` for nothing, and for what is no shape."""
    if isinstance(shape, dict):
        return _box_of_runs(shape)
    if not is_shape(shape) or not all(len(polygon) % 2 == 0 and all(map(is_number, polygon)) for polygon in shape):
        return None
    parts = [points for polygon in shape if _has_area(points := np.array(polygon, dtype=float).reshape(-1, 2))]
    if not parts:
        return None
    points = np.concatenate(parts)
    (x, y), (w, h) = points.min(0).tolist(), np.ptp(points, 0).tolist()
    return x, y, w, h


def _has_area(points: np.ndarray) -> bool:
    """Return whether points are not on one line; outlines that cross themselves have areas that cancel out."""
    if len(points) < 3:
        return False
    sides = points - points[0]
    x, y = sides[np.abs(sides).sum(1).argmax()]
    return bool((sides[:, 0] * y != sides[:, 1] * x).any())


def runs(shape: dict[str, Any]) -> list[int] | None:
    """Return how many pixels are background, foreground and so on, column by column; ``None`` if that is not said."""
    size, counts = shape.get('size'), shape.get('counts')
    if not isinstance(size, list) or len(size) != 2 or not all(type(edge) is int and edge > 0 for edge in size):
        return None
    counts = counts if isinstance(counts, list) else _decoded(counts)
    if counts is None or not all(type(count) is int and count >= 0 for count in counts):
        return None
    return counts if sum(counts) == size[0] * size[1] else None


def _decoded(text: Any) -> list[int] | None:
    """Return the numbers in COCO's compressed text: five bits a letter, and from the fourth on differences."""
    letters = text.encode() if isinstance(text, str) else text
    if not isinstance(letters, bytes) or not letters or not all(48 <= letter < 112 for letter in letters):
        return None
    counts: list[int] = []
    value = shift = 0
    for letter in letters:
        bits = letter - 48
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        value -= (bits & 16) << (shift - 4)
        counts.append(value + counts[-2] if len(counts) > 2 else value)
        value = shift = 0
    return None if shift else counts


def _box_of_runs(shape: dict[str, Any]) -> Box | None:
    counts = runs(shape)
    if counts is None:
        return None
    height = shape['size'][0]
    ends = np.cumsum(counts)[1::2]
    filled = np.array(counts)[1::2] > 0
    first, last = (ends - counts[1::2])[filled], ends[filled] - 1
    if not len(first):
        return None
    left, right = int((first // height).min()), int((last // height).max())
    if (first // height != last // height).any():  # such a run has the end of a column and the start of the next
        top, bottom = 0, height - 1
    else:
        top, bottom = int((first % height).min()), int((last % height).max())
    return float(left), float(top), float(right - left + 1), float(bottom - top + 1)
