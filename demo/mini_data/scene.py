"""The shared renderer: one random scene gives an image, a label per background pixel and an exact mask per object."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter

from demo.mini_data.backgrounds import Canvas, render_background
from demo.mini_data.raster import Patch, draw_shape
from demo.mini_data.shapes import SHAPES

# At least this fraction of every object stays visible when another is placed.
MIN_VISIBLE = 0.7
# Objects are at least this long, in pixels, however small the image.
_MIN_EXTENT = 14.0
# From (x, y) in the direction (dx, dy), one pixel long.
Step = tuple[int, int, int, int]


@dataclass(frozen=True)
class SceneStyle:
    """The contents of a scene.

    Attributes:
        groups (Sequence[Sequence[str]]): Names in :data:`demo.mini_data.shapes.SHAPES`; an object is drawn from a group
            chosen with equal odds, so that a class with several looks is no more frequent than the others.
        counts (tuple[int, int]): Least and largest number of objects tried; at least one is always placed.
        extents (tuple[float, float]): Range of the objects' longer side as a part of the image's edge.
    """

    groups: Sequence[Sequence[str]]
    counts: tuple[int, int]
    extents: tuple[float, float]


@dataclass(frozen=True)
class SceneObject:
    """One object of a scene.

    Attributes:
        name (str): Key of :data:`demo.mini_data.shapes.SHAPES`.
        mask (ndarray[size, size]): bool, its visible pixels; free of holes, disjoint from the other objects' masks.
    """

    name: str
    mask: np.ndarray


@dataclass(frozen=True)
class Scene:
    """A rendered scene.

    Attributes:
        image (ndarray[size, size, 3]): uint8 RGB.
        stuff (ndarray[size, size]): uint8, index into :data:`demo.mini_data.backgrounds.STUFF`, also behind objects.
        objects (tuple[SceneObject, ...]): From the hindmost to the foremost.
    """

    image: np.ndarray
    stuff: np.ndarray
    objects: tuple[SceneObject, ...]


def _boundary_steps(mask: np.ndarray) -> dict[Step, None]:
    """Return unit steps along the mask's boundary, the mask on their right hand; a dict for its order."""
    padded = np.pad(mask, 1)
    # What must be outside, and the step along that side of the pixel.
    sides = (
        (padded[:-2, 1:-1], (0, 0, 1, 0)),
        (padded[1:-1, 2:], (1, 0, 0, 1)),
        (padded[2:, 1:-1], (1, 1, -1, 0)),
        (padded[1:-1, :-2], (0, 1, 0, -1)),
    )
    steps: dict[Step, None] = {}
    for neighbour, (offset_x, offset_y, dx, dy) in sides:
        for y, x in np.argwhere(mask & ~neighbour).tolist():
            steps[x + offset_x, y + offset_y, dx, dy] = None
    return steps


def _trace(steps: dict[Step, None]) -> np.ndarray:
    """Follow one closed outline, taking its steps out of ``steps``; return its corners [n, 2]."""
    first = step = next(iter(steps))
    corners = []
    while True:
        del steps[step]
        x, y, dx, dy = step
        x, y = x + dx, y + dy
        # Where two pixels only touch at a corner, turning right stays with the pixel whose side was followed.
        following = ((x, y, -dy, dx), (x, y, dx, dy), (x, y, dy, -dx))
        step = next(candidate for candidate in following if candidate in steps or candidate == first)
        if step[2:] != (dx, dy):
            corners.append((x, y))
        if step == first:
            return np.array(corners)


def outlines(mask: np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Trace a mask's outlines, and those of its holes.

    Pixels that only touch at a corner count as separate.

    Args:
        mask (ndarray[H, W]): bool.

    Returns:
        tuple[list[ndarray[n, 2]], list[ndarray[m, 2]]]: Outlines of the pieces and of the holes; int corners (x, y),
        where pixel (0, 0) spans [0, 1] x [0, 1].
    """
    steps = _boundary_steps(np.asarray(mask, dtype=bool))
    pieces: list[np.ndarray] = []
    holes: list[np.ndarray] = []
    while steps:
        loop = _trace(steps)
        x, y = loop[:, 0], loop[:, 1]
        # Shoelace formula: a piece is traversed with a positive area (y points down), a hole with a negative one.
        doubled_area = np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y)
        (pieces if doubled_area > 0 else holes).append(loop)
    return pieces, holes


def mask_to_polygons(mask: np.ndarray) -> list[list[float]]:
    """Convert a mask to COCO polygons that decode to exactly the same pixels.

    Args:
        mask (ndarray[H, W]): bool, without holes, which COCO polygons cannot express.

    Returns:
        list[list[float]]: One flat list x0, y0, x1, y1, … for each piece.

    Raises:
        ValueError: The mask has a hole.
    """
    pieces, holes = outlines(mask)
    if holes:
        x, y = holes[0][0]
        raise ValueError(f'`mask` must have no holes, got {len(holes)}, the first at (x, y) = ({x}, {y}); fill them')
    return [piece.astype(float).ravel().tolist() for piece in pieces]


def mask_to_box(mask: np.ndarray) -> list[float]:
    """Return the tight box of a mask's pixels.

    Args:
        mask (ndarray[H, W]): bool, not empty.

    Returns:
        list[float]: x, y, width, height in pixels.

    Raises:
        ValueError: The mask is empty.
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        raise ValueError('`mask` must cover at least one pixel, got an empty mask')
    return [float(columns[0]), float(rows[0]), float(columns[-1] - columns[0] + 1), float(rows[-1] - rows[0] + 1)]


def _full_mask(patch: Patch, size: int) -> np.ndarray:
    """Return a patch's mask in the image, bool [size, size]."""
    there, here = patch.window(size)
    mask = np.zeros((size, size), dtype=bool)
    mask[there] = patch.mask[here]
    return mask


def _place(
    patch: Patch, name: str, placed: Sequence[SceneObject], areas: Sequence[int], size: int
) -> list[SceneObject] | None:
    """Put a patch in front of the placed objects, or return None where too little of one of them would show."""
    mask = _full_mask(patch, size)
    result = [SceneObject(other.name, other.mask & ~mask) for other in placed] + [SceneObject(name, mask)]
    for item, area in zip(result, [*areas, int(patch.mask.sum())], strict=True):
        # Polygons cannot express holes, as where a small object stands in the middle of a large one.
        if item.mask.sum() < MIN_VISIBLE * area or outlines(item.mask)[1]:
            return None
    return result


def _blend(canvas: Canvas, patch: Patch) -> None:
    """Draw a patch into the image."""
    there, here = patch.window(canvas.size)
    alpha = patch.alpha[here][..., None]
    canvas.image[there] = canvas.image[there] * (1 - alpha) + patch.color[here] * alpha


def _shadow(canvas: Canvas, patch: Patch, light: float) -> None:
    """Darken what is behind a patch, away from the light."""
    radius = 0.04 * max(patch.alpha.shape)
    margin = int(4 * radius) + 1
    solid = np.pad((255 * patch.alpha).astype(np.uint8), margin)
    blurred = np.asarray(Image.fromarray(solid).filter(ImageFilter.GaussianBlur(radius)), dtype=np.float32) / 255
    left = patch.left - margin - round(1.5 * radius * np.cos(light))
    top = patch.top - margin - round(1.5 * radius * np.sin(light))
    shadow = Patch(left, top, np.zeros((*blurred.shape, 3), dtype=np.float32), 0.35 * blurred)
    _blend(canvas, shadow)


def _photograph(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Finish an image as a camera would: exposure, contrast, colour cast, a little blur and sensor noise."""
    cast = rng.uniform(0.94, 1.06, 3)
    image = (image - 128) * rng.uniform(0.8, 1.1) + 128 + rng.uniform(-22, 22)
    pixels = Image.fromarray(np.clip(image * cast, 0, 255).astype(np.uint8))
    if rng.random() < 0.3:
        pixels = pixels.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 0.8)))
    noise = rng.normal(0, rng.uniform(1, 5), image.shape)
    return np.clip(np.asarray(pixels) + noise, 0, 255).round().astype(np.uint8)


def render_scene(rng: np.random.Generator, size: int, style: SceneStyle) -> Scene:
    """Render one random scene.

    Args:
        rng (Generator): Source of randomness; equal states give equal scenes.
        size (int): Edge of the square image in pixels, at least 64.
        style (SceneStyle): What it holds.

    Returns:
        Scene: Image, background labels and objects.
    """
    canvas = render_background(rng, size)
    light = rng.uniform(-np.pi, 0)
    wanted = int(rng.integers(style.counts[0], style.counts[1] + 1))
    objects: list[SceneObject] = []
    areas: list[int] = []
    tries = 0
    while len(objects) < wanted and (tries < 6 * wanted or not objects):
        tries += 1
        group = style.groups[rng.integers(len(style.groups))]
        name = group[rng.integers(len(group))]
        low, high = np.log(style.extents)
        half_extent = max(np.exp(rng.uniform(low, high)) * size, _MIN_EXTENT) / 2
        margin = 0.7 * half_extent
        center = rng.uniform(margin, size - margin, 2)
        patch = draw_shape(SHAPES[name], rng, (center[0], center[1]), half_extent, light)
        after = _place(patch, name, objects, areas, size)
        if after is not None:
            objects = after
            areas.append(int(patch.mask.sum()))
            _shadow(canvas, patch, light)
            _blend(canvas, patch)
    return Scene(_photograph(rng, canvas.image), canvas.stuff, tuple(objects))
