"""Backgrounds: outdoor and indoor scenery with a label per pixel, and clutter."""

from collections.abc import Callable, Sequence

import numpy as np

from demo.mini_data.raster import coverage, mix, pattern, turned, value_noise
from demo.mini_data.shapes import arc, stroke

#: Labels of :attr:`Canvas.stuff`, in order; clutter belongs to no class.
STUFF = ('other', 'sky', 'mountain', 'building', 'tree', 'grass', 'road', 'wall', 'floor', 'windowpane', 'painting')

# Colours of each surface, from which one is drawn per image.
_PALETTES: dict[str, tuple[tuple[float, float, float], ...]] = {
    'sky': ((108, 164, 226), (150, 190, 222), (186, 196, 206), (236, 186, 150), (92, 128, 190)),
    'mountain': ((104, 112, 134), (126, 112, 104), (86, 104, 110)),
    'building': ((176, 154, 136), (150, 96, 80), (128, 134, 146), (200, 186, 160), (108, 118, 132)),
    'tree': ((52, 98, 50), (72, 116, 44), (36, 82, 62), (142, 112, 44)),
    'grass': ((98, 146, 62), (122, 150, 76), (84, 126, 70), (160, 154, 84)),
    'road': ((104, 104, 108), (128, 122, 116), (86, 88, 96)),
    'wall': ((214, 202, 180), (168, 186, 190), (190, 150, 140), (226, 220, 210), (140, 156, 130), (110, 122, 146)),
    'floor': ((160, 118, 78), (124, 88, 60), (178, 170, 160), (138, 140, 146)),
    'windowpane': ((176, 208, 230), (204, 222, 232), (120, 150, 190)),
    'painting': ((188, 164, 120), (90, 110, 130), (170, 96, 84)),
}


class Canvas:
    """A square image under construction.

    Args:
        size (int): Edge in pixels.

    Attributes:
        image (ndarray[size, size, 3]): float32 RGB in [0, 255].
        stuff (ndarray[size, size]): uint8, index into :data:`STUFF`.
        u, v (ndarray[size, size]): float32, column and row of each pixel's middle over the edge, in [0, 1].
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.image = np.zeros((size, size, 3), dtype=np.float32)
        self.stuff = np.zeros((size, size), dtype=np.uint8)
        self.v, self.u = (np.indices((size, size), dtype=np.float32) + 0.5) / size

    def paint(self, label: str, polygons: Sequence[np.ndarray] | None, color: np.ndarray, opacity: float = 1.0) -> None:
        """Cover a region, with smooth edges in the image and full pixels in the labels.

        Args:
            label (str): One of :data:`STUFF`.
            polygons (Sequence[ndarray[n, 2]] | None): Corners (x, y) in [0, 1]; None for everything.
            color (ndarray[size, size, 3] | ndarray[3]): RGB in [0, 255].
            opacity (float): Below 1 the region shows what is behind; below 0.5 it keeps that one's label.
        """
        window, alpha = (slice(None), slice(None)), np.ones((self.size, self.size), dtype=np.float32)
        if polygons is not None:
            window, alpha = coverage([points * self.size for points in polygons], self.size)
        alpha = opacity * alpha
        self.image[window] = mix(self.image[window], color[window] if color.ndim == 3 else color, alpha)
        self.stuff[window][alpha >= 0.5] = STUFF.index(label)


def _color(rng: np.random.Generator, surface: str, jitter: float = 14.0) -> np.ndarray:
    palette = _PALETTES[surface]
    return np.asarray(palette[rng.integers(len(palette))], dtype=np.float32) + rng.uniform(-jitter, jitter, 3)


def _rough(rng: np.random.Generator, canvas: Canvas, color: np.ndarray, cell: float, contrast: float) -> np.ndarray:
    """Return a colour made uneven by noise: cell as a part of the edge, contrast in grey levels."""
    noise = value_noise(rng, canvas.size, canvas.size, max(cell * canvas.size, 2.0))
    return (color + contrast * (2 * noise[..., None] - 1)).astype(np.float32)


def box(left: float, top: float, right: float, bottom: float) -> np.ndarray:
    """Return the corners [4, 2] of an upright box."""
    return np.array([(left, top), (right, top), (right, bottom), (left, bottom)])


def _skyline(rng: np.random.Generator, level: float, height: float, points: int) -> np.ndarray:
    """Return the corners of a region under a jagged line that reaches down to the image's lower edge."""
    x = np.linspace(-0.05, 1.05, points) + rng.uniform(-0.4, 0.4, points) / points
    y = level - height * rng.uniform(0.1, 1.0, points)
    return np.concatenate([np.stack([x, y], axis=1), [(1.1, 1.0), (-0.1, 1.0)]])


def _sky(rng: np.random.Generator, canvas: Canvas, horizon: float) -> None:
    color = _color(rng, 'sky')
    image = mix(color, np.minimum(color + 50, 250), np.clip(canvas.v / horizon, 0, 1))
    clouds = value_noise(rng, canvas.size, canvas.size, 0.4 * canvas.size, octaves=4)
    amount = np.clip((clouds - rng.uniform(0.45, 0.65)) * 5, 0, 0.85)
    canvas.paint('sky', None, mix(image, np.float32([238, 240, 244]), amount))


def _mountain(rng: np.random.Generator, canvas: Canvas, horizon: float) -> None:
    height = rng.uniform(0.12, 0.35)
    outline = _skyline(rng, horizon, height, int(rng.integers(5, 9)))
    canvas.paint('mountain', [outline], _rough(rng, canvas, _color(rng, 'mountain'), 0.1, 45.0))


def _buildings(rng: np.random.Generator, canvas: Canvas, horizon: float) -> None:
    left = rng.uniform(-0.1, 0.5)
    for _ in range(rng.integers(1, 4)):
        width, height = rng.uniform(0.14, 0.32), rng.uniform(0.2, 0.5)
        top = max(horizon - height, 0.02)
        wall = _rough(rng, canvas, _color(rng, 'building'), 0.05, 14.0)
        columns, rows = (width, horizon + 0.02 - top) / rng.uniform(0.045, 0.08, 2)
        # Windows: bright where waves along both directions are above their middle.
        waves = np.minimum(
            np.sin((canvas.u - left) / width * np.pi * round(columns) * 2 - np.pi / 2),
            np.sin((canvas.v - top) / (horizon - top) * np.pi * round(rows) * 2 - np.pi / 2),
        )
        pane = _color(rng, 'windowpane') * rng.uniform(0.35, 1.0)
        canvas.paint(
            'building', [box(left, top, left + width, horizon + 0.02)], mix(wall, pane, np.clip(4 * waves, 0, 1))
        )
        left += width + rng.uniform(-0.03, 0.15)


def _tree(rng: np.random.Generator, canvas: Canvas, horizon: float) -> None:
    x, base = rng.uniform(0.05, 0.95), horizon + rng.uniform(0.0, 0.12)
    height, spread = rng.uniform(0.25, 0.5), rng.uniform(0.08, 0.15)
    trunk = stroke([(x, base), (x + rng.uniform(-0.02, 0.02), base - 0.6 * height)], 0.16 * spread + 0.01)
    canvas.paint('tree', [trunk], np.float32([84, 62, 44]) + rng.uniform(-12, 12, 3))
    crown = []
    for _ in range(7):
        middle = np.array([x, base - 0.7 * height]) + rng.uniform(-0.6, 0.6, 2) * (spread, 0.4 * height)
        leaves = arc(spread * rng.uniform(0.5, 0.8), count=14) * rng.uniform(0.8, 1.2, (14, 1))
        crown.append(middle + leaves)
    canvas.paint('tree', crown, _rough(rng, canvas, _color(rng, 'tree'), 0.04, 60.0))


def _outdoors(rng: np.random.Generator, canvas: Canvas) -> None:
    horizon = rng.uniform(0.45, 0.8)
    _sky(rng, canvas, horizon)
    if rng.random() < 0.45:
        _mountain(rng, canvas, horizon)
    if rng.random() < 0.5:
        _buildings(rng, canvas, horizon)
    ground = box(-0.1, horizon, 1.1, 1.1) + rng.uniform(-0.03, 0.03, (4, 2)) * (0, 1)
    canvas.paint('grass', [ground], _rough(rng, canvas, _color(rng, 'grass'), 0.03, 40.0))
    if rng.random() < 0.6:
        middle, far, near = rng.uniform(0.2, 0.8), rng.uniform(0.02, 0.12), rng.uniform(0.25, 0.6)
        foot = middle + rng.uniform(-0.3, 0.3)
        road = np.array(
            [(middle - far, horizon + 0.02), (middle + far, horizon + 0.02), (foot + near, 1.05), (foot - near, 1.05)]
        )
        canvas.paint('road', [road], _rough(rng, canvas, _color(rng, 'road'), 0.02, 18.0))
        line = np.array([(middle, horizon + 0.02), (foot, 1.05)])
        dashes = [
            stroke(line[0] + (line[1] - line[0]) * np.array([[t], [t + 0.08]]), 0.008 + 0.012 * t)
            for t in np.arange(0.1, 0.9, 0.2)
        ]
        canvas.paint('road', dashes, np.float32([226, 222, 200]))
    for _ in range(rng.integers(0, 3)):
        _tree(rng, canvas, horizon)


def _indoors(rng: np.random.Generator, canvas: Canvas) -> None:
    edge = rng.uniform(0.6, 0.85)
    color = _color(rng, 'wall')
    u, v = turned(canvas.u, canvas.v, rng.choice((0.0, 0.0, np.pi / 4)))
    paper = pattern(str(rng.choice(('plain', 'stripes', 'checkers', 'dots'))), u, v, rng.uniform(5, 12))
    wall = mix(color, color + rng.uniform(-34, 34), paper) + _rough(rng, canvas, np.zeros(3), 0.3, 12.0)
    canvas.paint('wall', None, wall)
    for label in rng.choice(('windowpane', 'painting'), rng.integers(0, 3)):
        width, height = rng.uniform(0.18, 0.34, 2)
        left, top = rng.uniform(0.02, 0.95 - width), rng.uniform(0.02, max(edge - height - 0.05, 0.03))
        frame, inside = box(left, top, left + width, top + height), 0.024
        canvas.paint(str(label), [frame], np.float32([236, 232, 224]) * rng.uniform(0.25, 1.0))
        glass = box(left + inside, top + inside, left + width - inside, top + height - inside)
        canvas.paint(
            str(label),
            [glass],
            _rough(rng, canvas, _color(rng, str(label)), 0.12, 20.0 if label == 'windowpane' else 110.0),
        )
        if label == 'windowpane':
            middle = left + width / 2
            canvas.paint('windowpane', [box(middle - 0.008, top, middle + 0.008, top + height)], np.float32([225] * 3))
    # The floor's rows grow toward the viewer.
    depth = 1 / (1.05 - np.clip((canvas.v - edge) / (1 - edge), 0, 1) * 0.8)
    kind = str(rng.choice(('stripes', 'checkers')))
    tiles = pattern(kind, (canvas.u - 0.5) / (0.35 + 0.5 * (canvas.v - edge)) * 0.6, depth, rng.uniform(1.5, 3))
    floor = _color(rng, 'floor')
    canvas.paint(
        'floor',
        [box(-0.1, edge, 1.1, 1.1)],
        mix(floor, floor * rng.uniform(0.6, 0.85), tiles) + _rough(rng, canvas, np.zeros(3), 0.04, 16.0),
    )


def _scrap(rng: np.random.Generator) -> np.ndarray:
    """Return the corners of a piece of clutter, in [0, 1]: a splinter, a bar, an angle or a box."""
    center, extent = rng.uniform(0.0, 1.0, 2), rng.uniform(0.03, 0.1)
    angle = rng.uniform(0, 2 * np.pi)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    kind = rng.integers(4)
    if kind == 0:
        points = rng.uniform(-1.2, 1.2, (3, 2))
    elif kind == 1:
        points = stroke([(-2.0, 0.0), (2.0, rng.uniform(-1, 1))], rng.uniform(0.15, 0.4))
    elif kind == 2:
        points = np.array([(-1, -1), (-0.4, -1), (-0.4, 0.4), (1, 0.4), (1, 1), (-1, 1)], dtype=float)
    else:
        points = box(-1.0, -0.7, 1.0, 0.7) * rng.uniform(0.5, 1.2, 2)
    return center + extent * points @ turn.T


def add_clutter(rng: np.random.Generator, canvas: Canvas) -> None:
    """Scatter scraps and lines over a scenery, half of them textured, some half transparent; all labelled 'other'."""
    for _ in range(rng.integers(3, 9)):
        first, second = rng.uniform(10, 245, (2, 3)).astype(np.float32)
        color: np.ndarray = first
        if rng.random() < 0.5:
            u, v = turned(canvas.u, canvas.v, rng.uniform(0, np.pi))
            color = mix(
                first, second, pattern(str(rng.choice(('stripes', 'checkers', 'dots'))), u, v, rng.uniform(8, 24))
            )
        canvas.paint('other', [_scrap(rng)], color, opacity=rng.choice((1.0, 1.0, 0.6)))


SCENERIES: tuple[Callable[[np.random.Generator, Canvas], None], ...] = (_outdoors, _indoors)


def render_background(rng: np.random.Generator, size: int) -> Canvas:
    """Draw a random scenery with clutter.

    Args:
        rng (Generator): Source of randomness.
        size (int): Edge of the image in pixels.

    Returns:
        Canvas: Image and labels, without objects.
    """
    canvas = Canvas(size)
    SCENERIES[0 if rng.random() < 0.6 else 1](rng, canvas)
    add_clutter(rng, canvas)
    return canvas
