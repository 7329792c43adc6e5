"""From polygons and textures to pixels: smooth edges for the image, hard ones for the masks."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from demo.mini_data.shapes import Part, Shape

PATTERNS = ('plain', 'stripes', 'checkers', 'dots', 'gradient')
# Polygons are drawn this many times larger and averaged down.
_OVERSAMPLING = 3


def value_noise(rng: np.random.Generator, height: int, width: int, cell: float, octaves: int = 3) -> np.ndarray:
    """Return smooth noise: random grids, finer and weaker octave by octave, enlarged bicubically and added.

    Args:
        rng (Generator): Source of randomness.
        height (int): Rows in pixels.
        width (int): Columns in pixels.
        cell (float): Size in pixels of the coarsest grid's cells.
        octaves (int): Number of grids, each twice as fine as the one before.

    Returns:
        ndarray[height, width]: float32, about [0, 1] with mean 0.5.
    """
    total = np.zeros((height, width), dtype=np.float32)
    for octave in range(octaves):
        step = max(cell / 2**octave, 1.0)
        shape = (int(height / step) + 2, int(width / step) + 2)
        grid = Image.fromarray(rng.random(shape, dtype=np.float32))
        total += np.asarray(grid.resize((width, height), Image.Resampling.BICUBIC)) / 2**octave
    return total / (2 - 2 / 2**octaves)


def pattern(kind: str, u: np.ndarray, v: np.ndarray, frequency: float = 1.0) -> np.ndarray:
    """Evaluate a pattern with soft edges: the share of the second colour.

    Args:
        kind (str): One of :data:`PATTERNS`.
        u (ndarray): First coordinate of each pixel, any shape; an object spans about [-1, 1].
        v (ndarray): Second coordinate, same shape.
        frequency (float): Periods per unit of length.

    Returns:
        ndarray: float32 in [0, 1], of the coordinates' shape.
    """
    phase_u, phase_v = 2 * np.pi * frequency * u, 2 * np.pi * frequency * v
    if kind == 'plain':
        level = np.full_like(u, -1.0)
    elif kind == 'stripes':
        level = 4 * np.sin(phase_u)
    elif kind == 'checkers':
        level = 6 * np.sin(phase_u) * np.sin(phase_v)
    elif kind == 'dots':
        level = 3 * (np.cos(phase_u) + np.cos(phase_v) - 0.8)
    elif kind == 'gradient':
        level = u
    else:
        raise ValueError(f'`kind` must be one of {", ".join(PATTERNS)}, got {kind!r}')
    return np.clip(0.5 + 0.5 * level, 0, 1).astype(np.float32)


def turned(u: np.ndarray, v: np.ndarray, angle: float) -> tuple[np.ndarray, np.ndarray]:
    """Turn coordinates by ``angle`` radians, so that a pattern over them has that angle."""
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    return cos * u + sin * v, cos * v - sin * u


def mix(first: np.ndarray, second: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Blend two colours per pixel.

    Args:
        first (ndarray[..., 3]): Colour where the weight is 0.
        second (ndarray[..., 3]): Colour where the weight is 1.
        weight (ndarray[H, W]): In [0, 1].

    Returns:
        ndarray[H, W, 3]: float32.
    """
    weight = weight[..., None]
    return (first * (1 - weight) + second * weight).astype(np.float32)


@dataclass(frozen=True)
class Patch:
    """A drawn object and its position.

    Attributes:
        left (int): Column of the patch's first pixel in the image; may be negative.
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
        """Return the rows and columns that both share, first in an image of ``size`` pixels, then in the patch."""
        height, width = self.alpha.shape
        top, left = max(self.top, 0), max(self.left, 0)
        bottom, right = max(min(self.top + height, size), top), max(min(self.left + width, size), left)
        return (
            (slice(top, bottom), slice(left, right)),
            (slice(top - self.top, bottom - self.top), slice(left - self.left, right - self.left)),
        )


def _draw(canvas: Image.Image, points: np.ndarray, value: int) -> None:
    # PIL's pixel i is centred on i; here corners have integer coordinates.
    ImageDraw.Draw(canvas).polygon([(x, y) for x, y in (points * _OVERSAMPLING - 0.5).tolist()], fill=value)


def _average(canvas: Image.Image) -> np.ndarray:
    """Return the mean over the oversampled pixels of a canvas, float32 in [0, 255]."""
    return np.asarray(canvas.reduce(_OVERSAMPLING), dtype=np.float32)


def coverage(polygons: Sequence[np.ndarray], size: int) -> tuple[tuple[slice, slice], np.ndarray]:
    """Return how much of each pixel a union of polygons covers, within the rows and columns that it touches.

    Args:
        polygons (Sequence[ndarray[n, 2]]): Corners (x, y) in pixels; pixel (0, 0) spans [0, 1] x [0, 1].
        size (int): Edge of the image in pixels.

    Returns:
        tuple[tuple[slice, slice], ndarray[h, w]]: Those rows and columns, and float32 in [0, 1] for each of their
        pixels; h or w is 0 where the polygons are outside the image.
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
    """Return the colour of an object, black where nothing of it shows.

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
        coverage = _average(canvas.point([255 if value == number else 0 for value in range(256)])) / 255
        level = coverage * pattern(part.pattern, *turned(u, v, part.angle), part.frequency)
        color += level[..., None] * (np.asarray(part.accent, dtype=np.float32) - np.float32(part.color))
    return color


def _light(u: np.ndarray, v: np.ndarray, direction: float, ball: bool) -> np.ndarray:
    """Return the brightness under a light at ``direction`` radians, near 1; a ball darkens toward the far rim."""
    toward = np.cos(direction) * u + np.sin(direction) * v
    return 1 + 0.2 * toward - (0.22 * (u * u + v * v) - 0.08 if ball else 0)


def _random_view(shape: Shape, rng: np.random.Generator) -> np.ndarray:
    """Return the matrix [2, 2] from a shape's frame to the image: squeezed, mirrored, turned."""
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
        center (tuple[float, float]): Centre of its frame, (x, y) in pixels.
        half_extent (float): Pixels per unit of its frame.
        light (float): Direction the light comes from, in radians.

    Returns:
        Patch: The drawn object, all of it, inside the image or not.
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
