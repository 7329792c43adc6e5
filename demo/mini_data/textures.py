"""Textures as plain arrays: smooth noise, and patterns over coordinates that turn with what they cover."""

import numpy as np
from PIL import Image

PATTERNS = ('plain', 'stripes', 'checkers', 'dots', 'gradient')


def value_noise(rng: np.random.Generator, height: int, width: int, cell: float, octaves: int = 3) -> np.ndarray:
    """Smooth noise: random grids, finer and weaker octave by octave, enlarged bicubically and added.

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
    """Evaluate a pattern with soft edges, which says how much of the second colour shows.

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
    """Turn coordinates by ``angle`` radians, so that a pattern over them lies at that angle."""
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
