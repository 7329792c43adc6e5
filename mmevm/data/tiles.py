"""Large images cut into tiles, with the boxes in them."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from mmevm.data.images import EXACT, read_pixels
from mmevm.data.records import Sample, Split, Thing, UserData
from mmevm.data.writing import coco_content
from mmevm.errors import UsageError
from mmevm.files import folder_fault


@dataclass(frozen=True)
class Tiling:
    """How images are cut.

    Attributes:
        size (int): Edge of a tile in pixels.
        overlap (int): Pixels that neighbouring tiles share at least.
        share (float): Objects with less of their box in a tile become crowd objects there.

    Raises:
        UsageError: If a value is out of its range.
    """

    size: int
    overlap: int
    share: float = 0.5

    def __post_init__(self) -> None:
        if self.size < 1:
            raise UsageError(f'Expected tiles of at least 1 pixel, got {self.size}')
        if not 0 <= self.overlap < self.size:
            raise UsageError(
                f'Expected an overlap (--overlap) from 0 to below the size of a tile, {self.size}, got {self.overlap}'
            )
        if not 0 < self.share <= 1:
            raise UsageError(f'Expected a share above 0 and up to 1, got {self.share}')

    def starts(self, length: int) -> list[int]:
        """Return where tiles begin along an edge: evenly spaced, the last one ends with the image."""
        count = 1 + max(0, -(-(length - self.size) // (self.size - self.overlap)))
        return [round(i * (length - self.size) / max(count - 1, 1)) for i in range(count)] if count > 1 else [0]


def cut(thing: Thing, left: int, top: int, width: int, height: int, share: float) -> Thing | None:
    """Return what a tile has of an object.

    Args:
        thing (Thing): Its box is one of the image; its shape is left out.
        left (int): First column of the tile.
        top (int): First row of the tile.
        width (int): Columns of the tile.
        height (int): Rows of the tile.
        share (float): Part of the box that has to be inside; with less of it, the object is a crowd object.

    Returns:
        Thing | None: Its box is clipped and relative to the tile; ``None`` where less than a pixel is inside.
    """
    x, y, w, h = thing.box
    x0, y0 = max(x - left, 0), max(y - top, 0)
    x1, y1 = min(x + w - left, width), min(y + h - top, height)
    if x1 - x0 < 1 or y1 - y0 < 1:
        return None
    crowd = thing.crowd or (x1 - x0) * (y1 - y0) < share * w * h
    return Thing(thing.category, (x0, y0, x1 - x0, y1 - y0), crowd=crowd, source=thing.source)


def _write(path: Path, pixels: np.ndarray) -> None:
    if path.suffix == '.npy':
        np.save(path, pixels)
    elif path.suffix in EXACT:
        from tifffile import imwrite

        bands = pixels.shape[2] if pixels.ndim == 3 else 1
        # Without these hints, tifffile writes each row of [H, W, C] as a page.
        imwrite(
            path,
            pixels,
            photometric='rgb' if bands in (3, 4) else 'minisblack',
            planarconfig='contig' if bands > 1 else None,
        )
    else:
        Image.fromarray(pixels).save(path, quality=95)


def _suffix(path: str, pixels: np.ndarray) -> str:
    """Return the source's suffix if its format holds the pixels; a PNG file may be named .jpg."""
    suffix = os.path.splitext(path)[1].lower()
    fits_jpeg = pixels.dtype == np.uint8 and pixels.shape[2:] in ((), (3,))
    return suffix if suffix in EXACT or (suffix in ('.jpg', '.jpeg') and fits_jpeg) else '.png'


def _tiles(sample: Sample, folder: Path, prefix: str, tiling: Tiling) -> Iterator[Sample]:
    pixels = read_pixels(sample.path)
    for top in tiling.starts(pixels.shape[0]):
        for left in tiling.starts(pixels.shape[1]):
            tile = np.ascontiguousarray(pixels[top : top + tiling.size, left : left + tiling.size])
            height, width = tile.shape[:2]
            path = folder / f'{prefix}_{left}_{top}{_suffix(sample.path, pixels)}'
            _write(path, tile)
            parts = (cut(thing, left, top, width, height, tiling.share) for thing in sample.things)
            yield Sample(str(path), [part for part in parts if part], size=(width, height))


def _copied(sample: Sample, folder: Path, prefix: str) -> Sample:
    path = folder / f'{prefix}{os.path.splitext(sample.path)[1]}'
    shutil.copyfile(sample.path, path)
    return Sample(str(path), sample.things, size=sample.size)


@contextmanager
def _emptied_on_failure(folder: Path) -> Iterator[None]:
    """Remove what was written into a new folder if not all of it could be, so that it can be written again."""
    try:
        yield
    except BaseException:
        for part in folder.iterdir():
            shutil.rmtree(part)
        raise


def tile_data(data: UserData, out: Path, tiling: Tiling, whole: tuple[str, ...] = ()) -> dict[str, Split]:
    """Write a dataset of tiles as COCO files.

    The tiles of an image stay in its split. Masks are left out.

    Args:
        data (UserData): A detection dataset without problems.
        out (Path): A folder that does not exist or is empty; gets ``annotations/`` and a folder for each split.
        tiling (Tiling): How its images are cut.
        whole (tuple[str, ...]): Splits whose images are copied as they are.

    Returns:
        dict[str, Split]: What was written, by split.

    Raises:
        UsageError: If the folder has files, the dataset is not one of boxes, or an image cannot be read; the folder
            is then as empty as before.
    """
    if data.kind != 'detection':
        raise UsageError(f'Expected a dataset of boxes, got {data.layout} for {data.kind}: {data.root}')
    fault = folder_fault(out)
    if fault:
        raise UsageError(f'{out} cannot be written: {fault}. Give a new folder.')
    if out.exists() and any(out.iterdir()):
        raise UsageError(f'{out} exists and is not empty. Give a new folder.')
    result = UserData('detection', 'COCO', out, data.classes, {}, data.findings)
    (out / 'annotations').mkdir(parents=True)
    with _emptied_on_failure(out):
        for name, split in data.splits.items():
            (out / name).mkdir()
            samples: list[Sample] = []
            for index, sample in enumerate(split.samples):
                prefix = f'{index:05d}_{Path(sample.path).stem}'
                if name in whole:
                    samples.append(_copied(sample, out / name, prefix))
                else:
                    samples += _tiles(sample, out / name, prefix, tiling)
            result.splits[name] = Split(samples)
            (out / f'annotations/{name}.json').write_text(json.dumps(coco_content(result, result.splits[name])))
    return result.splits
