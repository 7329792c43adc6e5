"""Things in the images, as coloured polygons in a unit frame: balls, signs, clocks, kites and others.

The frame spans about [-1, 1] in x (to the right) and y (downward). A shape is a list of parts, drawn in order.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

Color = tuple[float, float, float]
Maker = Callable[[np.random.Generator], 'list[Part]']

_LIVELY: tuple[Color, ...] = (
    (214, 48, 49),
    (9, 132, 227),
    (253, 203, 49),
    (0, 158, 115),
    (142, 68, 173),
    (240, 120, 30),
    (236, 240, 241),
    (232, 67, 147),
    (26, 188, 190),
    (45, 52, 70),
)


@dataclass(frozen=True)
class Part:
    """One polygon of a shape.

    Attributes:
        points (ndarray[n, 2]): Corners (x, y) in the unit frame.
        color (Color): RGB in [0, 255].
        accent (Color | None): Second colour of the pattern; None for the first again.
        pattern (str): See :data:`demo.mini_data.raster.PATTERNS`.
        frequency (float): Periods of the pattern per unit of length.
        angle (float): Turn of the pattern in radians.
    """

    points: np.ndarray
    color: Color
    accent: Color | None = None
    pattern: str = 'plain'
    frequency: float = 3.0
    angle: float = 0.0


@dataclass(frozen=True)
class Shape:
    """How a kind of thing is drawn.

    Attributes:
        make (Maker): Draws the parts with random colours and details.
        max_angle (float): Largest turn to either side, in degrees.
        min_aspect (float): Smallest factor on the width, as from a sideways view.
        ball (bool): Shaded like a ball rather than a board.
        mirror (bool): May be mirrored; not what carries letters.
    """

    make: Maker
    max_angle: float
    min_aspect: float
    ball: bool = False
    mirror: bool = True


def arc(
    radius: float, start: float = 0.0, stop: float = 360.0, center: tuple[float, float] = (0.0, 0.0), count: int = 48
) -> np.ndarray:
    """Return points on a circle between two angles in degrees, [count, 2]; a full turn does not repeat the first."""
    angles = np.radians(np.linspace(start, stop, count, endpoint=abs(stop - start) < 360))
    return np.stack([center[0] + radius * np.cos(angles), center[1] + radius * np.sin(angles)], axis=1)


def stroke(points: Sequence[Sequence[float]] | np.ndarray, width: float) -> np.ndarray:
    """Return the outline [2n, 2] of a line of ``width`` along ``points`` [n, 2]."""
    points = np.asarray(points, dtype=float)
    along = np.gradient(points, axis=0)
    normal = np.stack([-along[:, 1], along[:, 0]], axis=1) / np.linalg.norm(along, axis=1, keepdims=True)
    return np.concatenate([points + normal * width / 2, (points - normal * width / 2)[::-1]])


def rounded_box(left: float, top: float, right: float, bottom: float, radius: float) -> np.ndarray:
    """Return the corners [n, 2] of a box with round corners."""
    corners = (
        (right - radius, bottom - radius, 0),
        (left + radius, bottom - radius, 90),
        (left + radius, top + radius, 180),
        (right - radius, top + radius, 270),
    )
    return np.concatenate([arc(radius, turn, turn + 90, (x, y), 7) for x, y, turn in corners])


def _jitter(rng: np.random.Generator, color: Color, amount: float = 18.0) -> Color:
    red, green, blue = np.clip(np.asarray(color) + rng.uniform(-amount, amount, 3), 0, 255)
    return float(red), float(green), float(blue)


def _lively(rng: np.random.Generator, count: int) -> list[Color]:
    """Return different colours, each a little off its table entry."""
    return [_jitter(rng, _LIVELY[i]) for i in rng.choice(len(_LIVELY), count, replace=False)]


def _soccer_ball(rng: np.random.Generator) -> list[Part]:
    white, dark = _jitter(rng, (240, 240, 236), 12), _jitter(rng, (32, 34, 42), 20)
    parts = [Part(arc(1.0), white), Part(arc(0.36, -90, 270, count=5), dark)]
    for turn in range(-90, 270, 72):
        direction = np.array([np.cos(np.radians(turn)), np.sin(np.radians(turn))])
        parts.append(Part(stroke([0.3 * direction, 0.75 * direction], 0.07), dark))
        # The next patches are seen from the side, cut by the rim.
        rim = arc(1.0, turn - 21, turn + 21, count=9)
        inner = arc(0.72, turn + 12, turn - 12, count=3)
        parts.append(Part(np.concatenate([rim, inner]), dark))
    return parts


def _basketball(rng: np.random.Generator) -> list[Part]:
    orange, line = _jitter(rng, (226, 112, 42)), _jitter(rng, (48, 28, 22), 10)
    parts = [Part(arc(1.0), orange, tuple(0.86 * c for c in orange), 'dots', 9.0)]
    curves = [
        [(-1, 0), (0, 0), (1, 0)],
        [(0, -1), (0, 0), (0, 1)],
        arc(1.0, -42, 42, (-1.34, 0.0), 15),
        arc(1.0, 138, 222, (1.34, 0.0), 15),
    ]
    return parts + [Part(stroke(curve, 0.09), line) for curve in curves]


def _tennis_ball(rng: np.random.Generator) -> list[Part]:
    felt, seam = _jitter(rng, (204, 226, 58), 14), _jitter(rng, (246, 248, 240), 6)
    parts = [Part(arc(1.0), felt, tuple(0.92 * c for c in felt), 'checkers', 7.0, 0.6)]
    curves = [arc(0.95, -47, 47, (-1.28, 0.0), 15), arc(0.95, 133, 227, (1.28, 0.0), 15)]
    return parts + [Part(stroke(curve, 0.13), seam) for curve in curves]


def _letters() -> list[np.ndarray]:
    """Return lines of the word STOP, four letters side by side, each within 0.3 x 0.56."""
    letter_s = [
        (0.13, -0.2),
        (0.06, -0.28),
        (-0.08, -0.28),
        (-0.14, -0.2),
        (-0.14, -0.1),
        (-0.06, -0.02),
        (0.06, 0.02),
        (0.14, 0.1),
        (0.14, 0.2),
        (0.08, 0.28),
        (-0.06, 0.28),
        (-0.13, 0.2),
    ]
    # Closed on a straight side, where both ends have the same normal.
    letter_o = np.concatenate(
        [[(-0.14, 0.0)], arc(0.14, 180, 360, (0.0, -0.14), 9), arc(0.14, 0, 180, (0.0, 0.14), 9), [(-0.14, 0.0)]]
    )
    bowl = np.concatenate([[(-0.13, -0.26)], arc(0.13, -90, 90, (0.0, -0.13), 9), [(-0.13, 0.0)]])
    words = (
        ([letter_s], -0.57),
        ([[(-0.16, -0.26), (0.0, -0.26), (0.16, -0.26)], [(0.0, -0.26), (0.0, 0.3)]], -0.2),
        ([letter_o], 0.19),
        ([[(-0.13, -0.3), (-0.13, 0.3)], bowl], 0.6),
    )
    return [np.asarray(line, dtype=float) + (x, 0.0) for lines, x in words for line in lines]


def _stop_sign(rng: np.random.Generator) -> list[Part]:
    white, red = _jitter(rng, (240, 238, 235), 12), _jitter(rng, (192, 28, 34))
    worn = tuple(0.9 * c for c in red)
    parts = [
        Part(arc(1.06, 22.5, 382.5, count=8), white),
        Part(arc(0.96, 22.5, 382.5, count=8), red, worn, 'gradient', angle=rng.uniform(0, 6.3)),
    ]
    return parts + [Part(stroke(line, 0.11), white) for line in _letters()]


def _clock(rng: np.random.Generator) -> list[Part]:
    rim, face = _jitter(rng, _LIVELY[rng.choice((0, 1, 3, 4, 9, 9))]), _jitter(rng, (243, 240, 226), 12)
    dark = _jitter(rng, (28, 28, 34), 12)
    parts = [Part(arc(1.0), rim), Part(arc(0.84), face)]
    for hour in range(12):
        inner = 0.58 if hour % 3 == 0 else 0.67
        ends = np.array([inner, 0.77])[:, None] * arc(1.0, 30 * hour, count=1)
        parts.append(Part(stroke(ends, 0.1 if hour % 3 == 0 else 0.05), dark))
    hours, minutes = rng.uniform(0, 12), rng.uniform(0, 60)
    for angle, length, width in ((30 * hours, 0.42, 0.12), (6 * minutes, 0.62, 0.08)):
        tip = length * arc(1.0, angle - 90, count=1)[0]
        parts.append(Part(stroke([-0.2 * tip, tip], width), dark))
    return parts + [Part(arc(0.09, count=16), rim)]


def _kite(rng: np.random.Generator) -> list[Part]:
    top, right, bottom, left, middle = (0.0, -1.0), (0.76, -0.36), (0.0, 0.6), (-0.76, -0.36), (0.0, -0.36)
    colors = _lively(rng, 4)
    style, frequency = rng.choice(('plain', 'stripes', 'checkers', 'dots')), rng.uniform(2.5, 4)
    sway = rng.uniform(0.04, 0.1) * rng.choice((-1, 1))
    y = np.linspace(0.55, 1.0, 13)
    tail = np.stack([sway * np.sin((y - 0.55) * 12), y], axis=1)
    parts = [Part(stroke(tail, 0.08), colors[2])]
    for index in (6, 12):
        x, y_bow = tail[index]
        bow = [(x - 0.17, y_bow - 0.08), (x + 0.17, y_bow + 0.08), (x + 0.17, y_bow - 0.08), (x - 0.17, y_bow + 0.08)]
        parts.append(Part(np.array(bow), colors[index // 6]))
    for i, panel in enumerate(
        ((top, right, middle), (right, bottom, middle), (bottom, left, middle), (left, top, middle))
    ):
        parts.append(Part(np.array(panel), colors[i % 2], colors[2 + i % 2], style, frequency, 0.6))
    return parts + [Part(stroke(spar, 0.04), (60, 44, 34)) for spar in ([top, bottom], [left, right])]


def _umbrella(rng: np.random.Generator) -> list[Part]:
    colors, steel = _lively(rng, 2), _jitter(rng, (70, 62, 58))
    style = rng.choice(('plain', 'plain', 'dots', 'stripes'))
    hook = np.concatenate([[(0.0, -0.9), (0.0, -0.3), (0.0, 0.78)], arc(0.13, 0, 180, (-0.13, 0.82), 9)])
    parts = [Part(stroke(hook, 0.09), steel), Part(stroke([(0.0, -1.0), (0.0, -0.8)], 0.07), steel)]
    ribs, sweep = np.cos(np.linspace(np.pi, 0, 7)), np.linspace(0, np.pi / 2, 13)
    for i in range(6):
        left, right = (np.stack([rib * np.sin(sweep), 0.05 - 0.9 * np.cos(sweep)], axis=1) for rib in ribs[i : i + 2])
        x = np.linspace(right[-1, 0], left[-1, 0], 9)[1:-1]
        # The cloth between two ribs ends in a bow.
        edge = np.stack([x, 0.05 - 0.09 * np.sin(np.linspace(0, np.pi, 9)[1:-1])], axis=1)
        # Panels reach a little under their neighbours, so that no slit shows.
        panel = np.concatenate([right + (0.01, 0), edge, left[::-1] - (0.01, 0)])
        parts.append(Part(panel, colors[i % 2], tuple(0.72 * c + 60 for c in colors[i % 2]), style, 4.0))
    return parts


def _traffic_light(rng: np.random.Generator) -> list[Part]:
    case = _jitter(rng, ((38, 42, 44), (34, 54, 46), (196, 152, 36))[rng.choice(3, p=(0.5, 0.25, 0.25))], 8)
    rim = tuple(0.6 * c for c in case)
    parts = [Part(rounded_box(-0.46, -1.0, 0.46, 1.0, 0.14), rim), Part(rounded_box(-0.4, -0.94, 0.4, 0.94, 0.1), case)]
    lit = rng.integers(3)
    for i, color in enumerate(((246, 54, 42), (252, 190, 44), (46, 222, 118))):
        center = (0.0, 0.6 * i - 0.6)
        shine = color if i == lit else tuple(0.3 * c + 8 for c in color)
        parts += [
            Part(arc(0.29, 180, 360, (0.0, center[1] - 0.03), 25), (12, 12, 14)),
            Part(arc(0.25, center=center, count=32), shine),
        ]
        if i == lit:
            parts.append(
                Part(arc(0.1, center=(-0.06, center[1] - 0.06), count=16), tuple(0.4 * c + 150 for c in color))
            )
    return parts


def _vase(rng: np.random.Generator) -> list[Part]:
    palettes = (
        ((232, 238, 244), (36, 76, 168)),
        ((196, 104, 62), (88, 40, 26)),
        ((58, 142, 120), (230, 214, 160)),
        ((108, 62, 128), (236, 196, 92)),
    )
    body, accent = (_jitter(rng, color) for color in palettes[rng.integers(len(palettes))])
    belly, neck = rng.uniform(0.58, 0.72), rng.uniform(0.2, 0.28)
    heights = np.array([-1.0, -0.84, -0.5, 0.0, 0.45, 0.8, 1.0])
    widths = np.array([0.38, neck, neck + 0.12, belly, 0.9 * belly, 0.36, 0.36])
    y = np.linspace(-1, 1, 49)
    profile = np.interp(y, heights, widths)
    profile = np.convolve(np.pad(profile, 3, mode='edge'), np.ones(7) / 7, mode='valid')
    bands = (
        ((0, 12), 'plain'),
        ((12, 20), 'stripes'),
        ((20, 34), str(rng.choice(('checkers', 'dots')))),
        ((34, 48), 'stripes' if rng.random() < 0.5 else 'plain'),
    )
    parts = []
    for (start, stop), style in bands:
        x, rows = profile[start : stop + 1], y[start : stop + 1]
        outline = np.concatenate([np.stack([x, rows], axis=1), np.stack([-x, rows], axis=1)[::-1]])
        angle = np.pi / 2 if style == 'stripes' else 0.0
        parts.append(Part(outline, body, accent, style, rng.uniform(3, 4.5), angle))
    mouth = arc(1.0, count=24) * (0.3, 0.055) + (0.0, -0.97)
    return parts + [Part(mouth, tuple(0.35 * c for c in body))]


SHAPES: dict[str, Shape] = {
    'soccer ball': Shape(_soccer_ball, 180, 0.96, ball=True),
    'basketball': Shape(_basketball, 180, 0.96, ball=True),
    'tennis ball': Shape(_tennis_ball, 180, 0.96, ball=True),
    'stop sign': Shape(_stop_sign, 14, 0.75, mirror=False),
    'clock': Shape(_clock, 18, 0.8),
    'kite': Shape(_kite, 40, 0.85),
    'umbrella': Shape(_umbrella, 28, 0.85),
    'traffic light': Shape(_traffic_light, 10, 0.85),
    'vase': Shape(_vase, 8, 0.85),
}
