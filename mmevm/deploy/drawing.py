"""Drawings of predictions with Pillow."""

import colorsys

import numpy as np

OPACITY = 0.5


def color(label: int) -> np.ndarray:
    """Return the colour of a class, far from those of its neighbours: float32 RGB [3] from 0 to 255."""
    return np.array(colorsys.hsv_to_rgb(label * 0.618034 % 1, 0.8, 0.9), np.float32) * 255


def tint(image: np.ndarray, where: np.ndarray, label: int) -> None:
    """Mix the colour of a class into an image, uint8 RGB [H, W, 3], where a mask [H, W] holds."""
    image[where] = (1 - OPACITY) * image[where] + OPACITY * color(label)


def draw_texts(image: np.ndarray, boxes: np.ndarray, texts: list[str], labels: list[int]) -> np.ndarray:
    """Draw boxes with a text at their upper left corner.

    Args:
        image (np.ndarray): uint8 RGB [H, W, 3].
        boxes (np.ndarray): Corners [N, 4].
        texts (list[str]): One for each box.
        labels (list[int]): Their classes.

    Returns:
        np.ndarray: As ``image``.
    """
    from PIL import Image, ImageDraw, ImageFont

    canvas = Image.fromarray(image)
    draw = ImageDraw.Draw(canvas)
    longest = max(image.shape[:2])
    font = ImageFont.load_default(max(10, longest // 50))
    for box, text, label in zip(boxes.tolist(), texts, labels, strict=True):
        fill = tuple(int(value) for value in color(label))
        draw.rectangle(box, outline=fill, width=max(1, longest // 400))
        corner = max(box[0], 0), max(box[1], 0)
        draw.rectangle(draw.textbbox(corner, text, font=font), fill=fill)
        draw.text(corner, text, fill='white', font=font)
    return np.asarray(canvas)
