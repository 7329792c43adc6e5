"""Resizing of images and maps, and masks of objects, in NumPy."""

import math

import numpy as np


def resize(
    image: np.ndarray, height: int, width: int, interpolation: str = 'bilinear', antialias: bool = False
) -> np.ndarray:
    """Resize an image as OpenCV does, or, with antialiasing, as Pillow does.

    Args:
        image (np.ndarray): [H, W, C].
        height (int): New height.
        width (int): New width.
        interpolation (str): 'bilinear', or, with antialiasing, 'bicubic'.
        antialias (bool): Average what a smaller image loses; needs Pillow and uint8.

    Returns:
        np.ndarray: [height, width, C] in the image's dtype.
    """
    if image.shape[:2] == (height, width):
        return image
    if antialias:
        from PIL import Image

        method = Image.Resampling[interpolation.upper()]
        return np.asarray(Image.fromarray(image).resize((width, height), method))
    top, bottom, down = _neighbours(image.shape[0], height)
    left, right, along = _neighbours(image.shape[1], width)
    along = along[:, None]
    rows = image[top] * (1 - down)[:, None, None] + image[bottom] * down[:, None, None]
    resized = rows[:, left] * (1 - along) + rows[:, right] * along
    return (np.rint(resized) if image.dtype == np.uint8 else resized).astype(image.dtype)


def _neighbours(old: int, new: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return for each of ``new`` cells the two cells of ``old`` around its centre, and the weight of the second."""
    position = np.clip((np.arange(new, dtype=np.float32) + 0.5) * (old / new) - 0.5, 0, old - 1)
    first = np.floor(position).astype(np.int64)
    return first, np.minimum(first + 1, old - 1), (position - first).astype(np.float32)


def resize_nearest(classes: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize a map of classes: [H, W] -> [height, width]."""
    rows = ((np.arange(height) + 0.5) * classes.shape[0] / height).astype(np.int64)
    cols = ((np.arange(width) + 0.5) * classes.shape[1] / width).astype(np.int64)
    return classes[rows[:, None], cols]


def enlarge(mask: np.ndarray, stride: int, scale: tuple[float, float], height: int, width: int) -> np.ndarray:
    """Enlarge the mask of a model's input to the image, as mmdet's RTMDet-Ins does.

    Args:
        mask (np.ndarray): [h, w].
        stride (int): Pixels of the input for each of its cells, across and down.
        scale (tuple[float, float]): Pixels of the input per pixel of the image, across and down.
        height (int): Of the image.
        width (int): Of the image.

    Returns:
        np.ndarray: float32 [height, width].
    """
    sides = [side * stride for side in mask.shape]
    full = resize(mask[..., None], *sides)
    rows, cols = (math.ceil(side / factor) for side, factor in zip(sides, reversed(scale), strict=True))
    return resize(full, rows, cols)[:height, :width, 0]


def paste_mask(mask: np.ndarray, box: np.ndarray, height: int, width: int) -> np.ndarray:
    """Spread the probabilities in a grid over a box onto the image, as mmdet does.

    Args:
        mask (np.ndarray): [h, w].
        box (np.ndarray): Corners [4] in pixels.
        height (int): Of the image.
        width (int): Of the image.

    Returns:
        np.ndarray: float32 [height, width], 0 outside the box.
    """
    # A frame of zeros: bilinear interpolation fades out over the grid's edge.
    framed = np.pad(mask, 1)
    pasted = np.zeros((height, width), np.float32)
    spans = []
    for low, high, cells, side in ((box[1], box[3], mask.shape[0], height), (box[0], box[2], mask.shape[1], width)):
        step = (high - low) / cells
        if not step > 0:
            return pasted
        span = np.arange(max(int(low - step), 0), min(int(high + step) + 1, side))
        position = (span + 0.5 - low) / step + 0.5
        span, position = (values[(position >= 0) & (position <= cells + 1)] for values in (span, position))
        first = np.minimum(position.astype(np.int64), cells)
        spans.append((span, first, (position - first).astype(np.float32)))
    (rows, top, down), (cols, left, along) = spans
    down = down[:, None]
    lines = framed[top] * (1 - down) + framed[top + 1] * down
    pasted[np.ix_(rows, cols)] = lines[:, left] * (1 - along) + lines[:, left + 1] * along
    return pasted
