"""Masks to polygons and boxes without loss: outlines run along the pixels' edges."""

import numpy as np

# From (x, y) in the direction (dx, dy), one pixel long.
Step = tuple[int, int, int, int]


def _boundary_steps(mask: np.ndarray) -> dict[Step, None]:
    """Unit steps along the mask's boundary, the mask on their right hand; a dict for its order."""
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
    """Follow one closed outline, taking its steps out of ``steps``; returns its corners [n, 2]."""
    first = step = next(iter(steps))
    corners = []
    while True:
        del steps[step]
        x, y, dx, dy = step
        x, y = x + dx, y + dy
        # Where two pixels touch at a corner alone, turning right stays with the pixel whose side was followed.
        following = ((x, y, -dy, dx), (x, y, dx, dy), (x, y, dy, -dx))
        step = next(candidate for candidate in following if candidate in steps or candidate == first)
        if step[2:] != (dx, dy):
            corners.append((x, y))
        if step == first:
            return np.array(corners)


def outlines(mask: np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Trace a mask's outlines, and those of its holes.

    Pixels that touch at a corner alone count as apart.

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
        # Shoelace formula: a piece is run around with a positive area (y points down), a hole with a negative one.
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
    """Tight box of a mask's pixels.

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
