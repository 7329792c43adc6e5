"""Rasterising polygons: smooth edges for the picture, whole pixels for the masks."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from demo.mini_data.shapes import Part, Shape
from demo.mini_data.textures import pattern, turned

# Polygons are drawn this many times larger and averaged down.
_OVERSAMPLING = 3


@dataclass(frozen=True)
class Patch:
    """A drawn object and where it lies.

    Args:
        left (int): Column of the patch's first pixel in the picture; may be negative.
        top (int): Row of the patch's first pixel; may be negative.
        color (ndarray[h, w, 3]): float32 RGB in [0, 255].
        alpha (ndarray[h, w]): float32 in [0, 1], the part of each pixel that the object covers.
    """

    left: int
    top: int
    color: np.ndarray
    alpha: np.ndarray

    @property
    def mask(self) -> np.ndarray:
        """ndarray[h, w]: bool, True where the object covers at least half of the pixel."""
        return self.alpha >= 0.5

    def window(self, size: int) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
        """Rows and columns that patch and picture share: first in the picture of ``size`` pixels, then in the patch."""
        height, width = self.alpha.shape
        top, left = max(self.top, 0), max(self.left, 0)
        bottom, right = max(min(self.top + height, size), top), max(min(self.left + width, size), left)
        return (
            (slice(top, bottom), slice(left, right)),
            (slice(top - self.top, bottom - self.top), slice(left - self.left, right - self.left)),
        )


def _draw(canvas: Image.Image, points: np.ndarray, value: int) -> None:
    # PIL's pixel i is centred on i; here corners lie on whole numbers.
    ImageDraw.Draw(canvas).polygon([(x, y) for x, y in (points * _OVERSAMPLING - 0.5).tolist()], fill=value)


def _average(canvas: Image.Image) -> np.ndarray:
    """Mean over the oversampled pixels of a canvas, float32 in [0, 255]."""
    return np.asarray(canvas.reduce(_OVERSAMPLING), dtype=np.float32)


def coverage(polygons: Sequence[np.ndarray], size: int) -> tuple[tuple[slice, slice], np.ndarray]:
    """How much of each pixel a union of polygons covers, within the rows and columns that it touches.

    Args:
        polygons (Sequence[ndarray[n, 2]]): Corners (x, y) in pixels; pixel (0, 0) spans [0, 1] x [0, 1].
        size (int): Edge of the picture in pixels.

    Returns:
        tuple[tuple[slice, slice], ndarray[h, w]]: Those rows and columns, and float32 in [0, 1] for each of their
        pixels; h or w is 0 where the polygons lie outside the picture.
    """
    corners = np.concatenate(polygons)
    left, top = np.clip(np.floor(corners.min(axis=0)).astype(int), 0, size).tolist()
    right, bottom = np.clip(np.ceil(corners.max(axis=0)).astype(int), (left, top), size).tolist()
    window = slice(top, bottom), slice(left, right)
    if right == left or bottom == top:
        return window, np.zeros((bottom - top, right - left), dtype=np.float32)
    canvas = Image.new('L', ((right - left) * _OVERSAMPLING, (bottom - top) * _OVERSAMPLING))
    for points in polygons:
        _draw(canvas, points - (left, top), 255)
    return window, _average(canvas) / 255


def _paint(parts: Sequence[Part], canvas: Image.Image, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Colour of an object, black where nothing of it shows.

    Args:
        parts (Sequence[Part]): The object's parts.
        canvas (Image): Oversampled; the number of the part that shows, from 1, or 0.
        u (ndarray[h, w]): First coordinate of the pixels in the object's frame.
        v (ndarray[h, w]): Second coordinate.

    Returns:
        ndarray[h, w, 3]: float32 RGB in [0, 255], times the part of the pixel that is covered.
    """
    flat = canvas.copy()
    flat.putpalette([0, 0, 0] + [round(channel) for part in parts for channel in part.color])
    color = _average(flat.convert('RGB'))
    for number, part in enumerate(parts, start=1):
        if part.pattern == 'plain' or part.accent is None:
            continue
        shown = _average(canvas.point([255 if value == number else 0 for value in range(256)])) / 255
        level = shown * pattern(part.pattern, *turned(u, v, part.angle), part.frequency)
        color += level[..., None] * (np.asarray(part.accent, dtype=np.float32) - np.float32(part.color))
    return color


def _light(u: np.ndarray, v: np.ndarray, direction: float, ball: bool) -> np.ndarray:
    """Brightness from a lamp at ``direction`` radians, near 1; a ball darkens toward the far rim."""
    toward = np.cos(direction) * u + np.sin(direction) * v
    return 1 + 0.2 * toward - (0.22 * (u * u + v * v) - 0.08 if ball else 0)


def _random_view(shape: Shape, rng: np.random.Generator) -> np.ndarray:
    """Matrix [2, 2] from a shape's frame to the picture: squeezed, mirrored, turned."""
    angle = np.radians(rng.uniform(-shape.max_angle, shape.max_angle))
    aspect = rng.uniform(shape.min_aspect, 1) * (rng.choice((-1, 1)) if shape.mirror else 1)
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) @ np.diag([aspect, 1.0])


def draw_shape(
    shape: Shape, rng: np.random.Generator, center: tuple[float, float], half_extent: float, light: float
) -> Patch:
    """Draw a shape with random details, turn and view.

    Args:
        shape (Shape): What to draw.
        rng (Generator): Source of randomness.
        center (tuple[float, float]): Where the middle of its frame lies, (x, y) in pixels.
        half_extent (float): Pixels per unit of its frame.
        light (float): Direction the light comes from, in radians.

    Returns:
        Patch: The drawn object, all of it, whether inside the picture or not.
    """
    parts = shape.make(rng)
    view = half_extent * _random_view(shape, rng)
    outlines = [part.points @ view.T + center for part in parts]
    corners = np.concatenate(outlines)
    left, top = (np.floor(corners.min(axis=0)).astype(int) - 1).tolist()
    width, height = (np.ceil(corners.max(axis=0)).astype(int) + 1 - (left, top)).tolist()
    canvas = Image.new('L', (width * _OVERSAMPLING, height * _OVERSAMPLING))
    for number, points in enumerate(outlines, start=1):
        _draw(canvas, points - (left, top), number)
    rows, columns = np.indices((height, width), dtype=np.float32)
    x, y = columns + (0.5 + left - center[0]), rows + (0.5 + top - center[1])
    inverse = np.linalg.inv(view).astype(np.float32)
    color = _paint(parts, canvas, inverse[0, 0] * x + inverse[0, 1] * y, inverse[1, 0] * x + inverse[1, 1] * y)
    alpha = _average(canvas.point([0] + [255] * 255)) / 255
    # Undo the black that was averaged in along the rim.
    color *= (_light(x / half_extent, y / half_extent, light, shape.ball) / np.maximum(alpha, 1e-3))[..., None]
    return Patch(left, top, np.clip(color, 0, 255).astype(np.float32), alpha.astype(np.float32))
