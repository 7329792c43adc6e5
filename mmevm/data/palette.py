"""Colours of classes."""

import colorsys


def palette(count: int) -> list[tuple[int, int, int]]:
    """Return as many colours as there are classes, each far from the ones before, uint8 (R, G, B)."""
    hues = ((index * 0.618034) % 1 for index in range(count))
    colours = (colorsys.hsv_to_rgb(hue, 0.85 - 0.25 * (index % 2), 0.95) for index, hue in enumerate(hues))
    return [(round(red * 255), round(green * 255), round(blue * 255)) for red, green, blue in colours]
