"""Options of the miniature data, and the random numbers that follow from them."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

#: Data sets that can be rendered, in the order of their random streams.
SUBSETS = ('coco', 'ade20k', 'imagenet')
SPLITS = ('train', 'val')
#: Takes a number of pictures and a title; yields 0, 1, … and may show how far it is.
Progress = Callable[[int, str], Iterable[int]]

_MIN_SIZE = 64
_MAX_SIZE = 4096
# File names and ids have room for this many.
_MAX_IMAGES = 99_999


@dataclass(frozen=True)
class Options:
    """What one data set is rendered from; equal options give equal bytes.

    Args:
        subset (str): One of :data:`SUBSETS`.
        seed (int): Non-negative.
        image_size (int): Edge of the square pictures in pixels, 64 to 4096.
        train_images (int): Pictures in the training split, 1 to 99999.
        val_images (int): Pictures in the validation split, 1 to 99999.

    Raises:
        ValueError: An option is out of its range.
    """

    subset: str
    seed: int
    image_size: int
    train_images: int
    val_images: int

    def __post_init__(self) -> None:
        if self.subset not in SUBSETS:
            raise ValueError(f'the data set must be one of {", ".join(SUBSETS)}, got {self.subset!r}')
        if self.seed < 0:
            raise ValueError(f'`seed` must be 0 or larger, got {self.seed}')
        if not _MIN_SIZE <= self.image_size <= _MAX_SIZE:
            raise ValueError(
                f'`image_size` must be {_MIN_SIZE} to {_MAX_SIZE} pixels, so that the objects can be '
                f'told apart, got {self.image_size}'
            )
        for split in SPLITS:
            if not 1 <= self.count(split) <= _MAX_IMAGES:
                raise ValueError(
                    f'`{split}_images` must be 1 to {_MAX_IMAGES}, got {self.count(split)}; both splits are needed'
                )

    def count(self, split: str) -> int:
        """Number of pictures in a split."""
        return {'train': self.train_images, 'val': self.val_images}[split]

    def rng(self, split: str, index: int) -> np.random.Generator:
        """Random numbers for one picture: no other picture shares them, and more pictures do not change them."""
        return np.random.default_rng([self.seed, SUBSETS.index(self.subset), SPLITS.index(split), index])
