"""Sizes of image files, by their headers alone."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmevm.data import images, sheet
from mmevm.data.images import image_size, measure, read_pixels
from mmevm.data.records import Sample
from mmevm.engine.checks import image_files
from mmevm.engine.checks.image_files import find_fault

from . import layouts

pytestmark = pytest.mark.openmmlab


@pytest.mark.parametrize('suffix', ['.png', '.jpg', '.bmp'])
def test_more_pixels_than_pillow_opens(suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = layouts.paint(tmp_path / f'a{suffix}', 0)
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 64)
    with pytest.raises(Image.DecompressionBombError):
        Image.open(path)
    assert image_size(str(path)) == sheet._read(str(path)).size == layouts.SIZE
    assert read_pixels(str(path)).shape == (*layouts.SIZE[::-1], 3)
    assert find_fault(str(path)) is None and Image.MAX_IMAGE_PIXELS == 64
    if suffix != '.bmp':  # which has no end marker
        path.write_bytes(path.read_bytes()[:-100])
        assert find_fault(str(path)).reason == find_fault(str(path), 'pillow').reason == 'it is truncated'
    monkeypatch.setattr(image_files, '_MOST_PIXELS', 64)
    assert image_size(str(path)) is None


def test_a_large_picture_that_is_turned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / 'a.jpg'
    Image.fromarray(np.zeros((30, 50, 3), np.uint8)).save(path, exif=exif)
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 64)
    assert image_size(str(path)) == (30, 50) and images.is_turned(str(path))


@pytest.mark.parametrize('name', ['a.tif', 'a.npy'])
def test_truncated_arrays(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    if path.suffix == '.npy':
        np.save(path, np.zeros((48, 64, 4), np.uint16))
    else:
        layouts.paint(path, 0, bands=4)
    sample = Sample(str(path))
    measure([sample])
    assert (sample.size, sample.fault) == (layouts.SIZE, '')
    path.write_bytes(path.read_bytes()[:-100])
    measure([sample])
    assert 'truncated' in sample.fault and sample.size is None
