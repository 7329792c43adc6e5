"""Rasterising polygons: smooth edges for the picture, whole pixels for the masks."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from mmevm.datasets.shapes import Part, Shape
from mmevm.datasets.textures import mix, pattern, turned

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
        return ((slice(top, bottom), slice(left, right)),
                (slice(top - self.top, bottom - self.top), slice(left - self.left, right - self.left)))


def _average_down(fine: np.ndarray) -> np.ndarray:
    """Mean over the oversampled pixels: [s * h, s * w, ...] -> [h, w, ...]."""
    height, width = (length // _OVERSAMPLING for length in fine.shape[:2])
    return fine.reshape(height, _OVERSAMPLING, width, _OVERSAMPLING, *fine.shape[2:]).mean(axis=(1, 3))


def _draw(canvas: Image.Image, points: np.ndarray, value: int) -> None:
    # PIL's pixel i is centred on i; here corners lie on whole numbers.
    ImageDraw.Draw(canvas).polygon([(x, y) for x, y in (points * _OVERSAMPLING - 0.5).tolist()], fill=value)


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
    return window, np.asarray(canvas.reduce(_OVERSAMPLING), dtype=np.float32) / 255


def _paint(parts: Sequence[Part], index: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Colour of every oversampled pixel from the number of the part that shows there, 0 for none."""
    colors = np.array([(0, 0, 0)] + [part.color for part in parts], dtype=np.float32)
    image = colors[index]
    for number, part in enumerate(parts, start=1):
        if part.pattern == 'plain' or part.accent is None:
            continue
        here = index == number
        level = pattern(part.pattern, *turned(u[here], v[here], part.angle), part.frequency)
        image[here] = mix(colors[number], np.asarray(part.accent, dtype=np.float32), level[:, None])[:, 0]
    return image


def _light(u: np.ndarray, v: np.ndarray, direction: float, ball: bool) -> np.ndarray:
    """Brightness from a lamp at ``direction`` radians, near 1; a ball darkens toward the far rim."""
    toward = np.cos(direction) * u + np.sin(direction) * v
    return 1 + 0.2 * toward - (0.22 * (u * u + v * v) - 0.08 if ball else 0)


def draw_shape(shape: Shape, rng: np.random.Generator, center: tuple[float, float], half_extent: float,
               light: float) -> Patch:
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
    angle = np.radians(rng.uniform(-shape.max_angle, shape.max_angle))
    aspect = rng.uniform(shape.min_aspect, 1) * (rng.choice((-1, 1)) if shape.mirror else 1)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = half_extent * turn @ np.diag([aspect, 1.])
    outlines = [part.points @ matrix.T + center for part in parts]
    corners = np.concatenate(outlines)
    left, top = np.floor(corners.min(axis=0)).astype(int) - 1
    width, height = np.ceil(corners.max(axis=0)).astype(int) + 1 - (left, top)
    canvas = Image.new('L', (int(width) * _OVERSAMPLING, int(height) * _OVERSAMPLING))
    for number, points in enumerate(outlines, start=1):
        _draw(canvas, points - (left, top), number)
    index = np.asarray(canvas)
    rows, columns = np.indices(index.shape, dtype=np.float32)
    offsets = np.stack([(columns + 0.5) / _OVERSAMPLING + left - center[0],
                        (rows + 0.5) / _OVERSAMPLING + top - center[1]], axis=-1).astype(np.float32)
    frame = offsets @ np.linalg.inv(matrix).T.astype(np.float32)
    color = _paint(parts, index, frame[..., 0], frame[..., 1])
    color *= _light(offsets[..., 0] / half_extent, offsets[..., 1] / half_extent, light, shape.ball)[..., None]
    alpha = _average_down((index > 0).astype(np.float32))
    color = _average_down(color * (index > 0)[..., None]) / np.maximum(alpha, 1e-6)[..., None]
    return Patch(int(left), int(top), np.clip(color, 0, 255), alpha)
