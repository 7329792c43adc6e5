"""Real pictures that need no download: scikit-learn's 1797 handwritten digits as a tree of folders."""

import os
from pathlib import Path

import numpy as np
from PIL import Image

from demo.mini_data.folders import is_current, make_folder

#: Pictures for training; the other 500 are for validation. They come in the order of their writers, so that most of
#: the validation's writers are not among the training's.
TRAIN_IMAGES = 1297
_WHITE = 16


def _write(root: Path, size: int) -> None:
    """Write ``{train,val}/<digit>/<number>.png``."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    for index, (pixels, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        split = 'train' if index < TRAIN_IMAGES else 'val'
        folder = root / split / str(label)
        folder.mkdir(parents=True, exist_ok=True)
        picture = Image.fromarray((pixels * (255 / _WHITE)).round().astype(np.uint8))
        picture.resize((size, size), Image.Resampling.BICUBIC).convert('RGB').save(folder / f'{index:04d}.png')


def make_digits(folder: str | os.PathLike, size: int = 64) -> bool:
    """Write the digits as an ImageNet-style tree; what is there already is left alone.

    Args:
        folder (str | os.PathLike): The ``data_root``: gets ``train/`` and ``val/`` with a folder for each digit.
        size (int): Edge of the pictures in pixels, enlarged from 8.

    Returns:
        bool: False where the tree was there already.

    Raises:
        FileExistsError: The folder holds files that this function did not write.
    """
    folder, options = Path(folder), dict(source='scikit-learn digits', size=size, train_images=TRAIN_IMAGES)
    if is_current(folder, options):
        return False
    make_folder(folder, options, lambda root: _write(root, size))
    return True
