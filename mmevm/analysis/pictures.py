"""Pictures to look at a model with: rendered scenes, or those of a folder."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from demo.mini_data.scene import SceneStyle, render_scene
from demo.mini_data.shapes import SHAPES

# ImageNet's colours, as every config normalises.
_MEAN, _STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
_SUFFIXES = ('.bmp', '.jpeg', '.jpg', '.png', '.webp')
_STYLE = SceneStyle(groups=tuple((name,) for name in SHAPES), counts=(1, 4), extents=(0.2, 0.7))


def _normalise(image: np.ndarray) -> Tensor:
    """Args: image (ndarray[H, W, 3]), RGB from 0 to 255. Returns: Tensor[1, 3, H, W], float32."""
    scaled = (image.astype(np.float32) - np.float32(_MEAN)) / np.float32(_STD)
    return torch.from_numpy(scaled).permute(2, 0, 1).unsqueeze(0).contiguous()


def render_pictures(count: int, size: int, seed: int = 0) -> Iterator[Tensor]:
    """Scenes of the miniature data's renderer.

    Args:
        count (int): Pictures.
        size (int): Edge of the squares in pixels, at least 64.
        seed (int): Equal seeds give equal pictures; more pictures do not change the first ones.

    Yields:
        Tensor[1, 3, size, size]: float32, normalised.
    """
    for index in range(count):
        yield _normalise(render_scene(np.random.default_rng([seed, index]), size, _STYLE).image)


def read_pictures(folder: str | os.PathLike, count: int, size: int) -> Iterator[Tensor]:
    """The first pictures of a folder and the folders in it, by path, each resized to a square.

    Args:
        folder (str | os.PathLike): The folder.
        count (int): Pictures at most.
        size (int): Edge of the squares in pixels.

    Returns:
        Iterator[Tensor[1, 3, size, size]]: float32, normalised.

    Raises:
        FileNotFoundError: If there is no picture.
    """
    found = sorted(path for path in Path(folder).rglob('*') if path.suffix.lower() in _SUFFIXES)
    if not found:
        raise FileNotFoundError(f'{folder} must be a folder with pictures ({", ".join(_SUFFIXES)}), found none')
    return (_read(path, size) for path in found[:count])


def _read(path: Path, size: int) -> Tensor:
    with Image.open(path) as picture:
        return _normalise(np.asarray(picture.convert('RGB').resize((size, size), Image.Resampling.BICUBIC)))
