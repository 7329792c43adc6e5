"""What a predictor takes for an image: files, folders, arrays, tensors, and images of Pillow."""

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

SUFFIXES = ('.bmp', '.jpeg', '.jpg', '.png', '.tif', '.tiff', '.webp')

Image = str | os.PathLike | np.ndarray


def image_files(folder: str | os.PathLike) -> list[Path]:
    """Return the images of a folder by name.

    Raises:
        FileNotFoundError: There are none.
    """
    found = sorted(path for path in Path(folder).iterdir() if path.suffix.lower() in SUFFIXES)
    if not found:
        raise FileNotFoundError(f'No images ({", ".join(SUFFIXES)}) in {os.path.abspath(folder)}')
    return found


def read_image(image: Image) -> np.ndarray:
    """Return an image as uint8 RGB [H, W, 3]; see :meth:`.predictor.Predictor.__call__`."""
    if isinstance(image, str | os.PathLike):
        try:
            from PIL import Image as PillowImage
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(f'Reading {image} needs Pillow; pixels can be given as an array') from error
        try:
            with PillowImage.open(image) as file:
                return _colours(file)
        except FileNotFoundError:
            raise FileNotFoundError(f'No image: {os.path.abspath(image)}') from None
        except Exception as error:  # a damaged file can lead to any
            raise ValueError(f'{image} cannot be read as an image: {error}') from error
    if not any(hasattr(image, name) for name in ('__array__', '__array_interface__', 'shape')):
        raise ValueError(
            'An image must be a path or an array, and several a list, tuple or iterator of them, '
            f'got {type(image).__name__}'
        )
    pillow = sys.modules.get('PIL.Image')
    if pillow and isinstance(image, pillow.Image):
        try:
            return _colours(image)
        except (OSError, ValueError) as error:
            raise ValueError(f"Pillow's image cannot be read: {error}") from error
    try:
        pixels = np.asarray(image)
    except Exception as error:  # of any library's arrays
        raise ValueError(f'An image cannot be read from this {type(image).__name__}: {error}') from error
    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3) or pixels.shape[2:] not in ((), (3,)) or not pixels.size:
        raise ValueError(f'An image must be uint8 [H, W, 3] (RGB) or [H, W], got {pixels.dtype} {list(pixels.shape)}')
    return np.repeat(pixels[..., None], 3, axis=2) if pixels.ndim == 2 else pixels


def _colours(image: Any) -> np.ndarray:
    """Return an image of Pillow upright and as RGB; of 16 bits the upper 8, as OpenCV reads them."""
    from PIL import ImageOps

    kind = image.format  # which is lost by turning it
    image = ImageOps.exif_transpose(image)
    # Pillow's 32-bit mode stands for the 16 bits of these formats, too.
    if image.mode.startswith('I;16') or (image.mode == 'I' and kind in ('PNG', 'PPM')):
        return np.repeat((np.asarray(image) >> 8).astype(np.uint8)[..., None], 3, axis=2)
    if image.mode[0] in 'IF':
        raise ValueError(f'it has pixels of more than 8 bits ({image.mode}) that cannot be read as colours')
    return np.asarray(image.convert('RGB'))
