"""What the predictor takes for an image: files of more than 8 bits, tensors, images of Pillow, and sequences."""

from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from mmevm.deploy import Predictor, load
from mmevm.deploy.predictor import read_image
from tests.test_deploy.test_predictor import INPUT, write_model

RAMP = np.linspace(0, 65535, 64 * 64).reshape(64, 64).round().astype(np.uint16)
PIXELS = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)


@pytest.fixture
def copying(tmp_path: Path) -> Predictor:
    return load(write_model(tmp_path / 'copy.onnx', task='backbone', input=INPUT, mmevm_version='0'), threads=1)


@pytest.mark.parametrize('name', ['ramp.png', 'ramp.tif', 'ramp.pgm'])
def test_16_bits_are_read_as_by_opencv(name: str, tmp_path: Path) -> None:
    path = str(tmp_path / name)
    assert cv2.imwrite(path, RAMP)
    found = read_image(path)
    assert found.dtype == np.uint8 and found.shape == (64, 64, 3)
    assert found.mean() == pytest.approx(127.5, abs=0.5)
    expected = cv2.imread(path)
    assert np.abs(found.astype(int) - expected).max() <= (0 if name == 'ramp.png' else 1)
    np.testing.assert_array_equal(read_image(Image.open(path)), found)


@pytest.mark.parametrize('mode', ['I', 'F'])
def test_32_bits_are_no_colours(mode: str, tmp_path: Path) -> None:
    Image.fromarray(RAMP.astype(np.int32 if mode == 'I' else np.float32)).save(tmp_path / 'deep.tif')
    with pytest.raises(ValueError, match=rf'deep.tif cannot be read .* more than 8 bits \({mode}\)'):
        read_image(tmp_path / 'deep.tif')


def palette(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray(pixels).quantize(256)


@pytest.mark.parametrize('form', [np.asarray, torch.from_numpy, Image.fromarray, palette])
def test_what_has_pixels_is_one_image(form: Callable, copying: Predictor) -> None:
    found = copying(form(PIXELS))
    assert found.image.shape == PIXELS.shape
    assert np.abs(found.image.astype(int) - PIXELS).mean() < (8 if form is palette else 1e-9)


@pytest.mark.parametrize('form', [list, tuple, iter, deque, lambda images: dict(enumerate(images)).values()])
def test_several_images(form: Callable, copying: Predictor) -> None:
    found = copying(form([PIXELS, torch.from_numpy(PIXELS)]))
    assert [prediction.image.tolist() for prediction in found] == [PIXELS.tolist()] * 2


@pytest.mark.parametrize(
    ('image', 'message'),
    [
        (None, 'must be a path or an array, .* got NoneType'),
        (7, 'got int'),
        ({'image': PIXELS}, 'got dict'),
        (b'image.png', 'got bytes'),
        ([[PIXELS]], 'got list'),
        (torch.zeros(6, 8, 3), r'got float32 \[6, 8, 3\]'),
        (torch.zeros(6, 8, 3, device='meta'), 'cannot be read from this Tensor'),
        (np.zeros((2, 6, 8, 3), np.uint8), r'got uint8 \[2, 6, 8, 3\]'),
    ],
)
def test_what_is_no_image(image: Any, message: str, copying: Predictor) -> None:
    with pytest.raises(ValueError, match=message):
        copying(image)


def test_images_of_pillow_are_turned_upright_as_their_files(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(PIXELS).save(tmp_path / 'turned.png', exif=exif)
    assert read_image(tmp_path / 'turned.png').shape == (8, 6, 3)
    np.testing.assert_array_equal(read_image(Image.open(tmp_path / 'turned.png')), read_image(tmp_path / 'turned.png'))


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (dict(task='pose'), "its task is 'pose', not one of classification, detection"),
        (dict(task='detection'), 'detection has other outputs than map0'),
        (dict(task='classification'), 'classification has other outputs than map0'),
        (dict(input='{}'), 'how images are prepared lacks color, dtype, mean, resize, std'),
        (dict(input='null'), 'how images are prepared lacks'),
        (dict(input=INPUT.replace('"mean"', '"average"')), 'how images are prepared lacks mean'),
        (dict(input=INPUT[: INPUT.index('[{')] + '{"scale": [8, 6]}}'), 'are .*, not a list'),
        (dict(input=INPUT.replace('scale', 'zoom')), "the unknown step {'zoom'"),
        (dict(input=INPUT[: INPUT.index('[{')] + '["resize"]}'), "the unknown step 'resize'"),
    ],
)
def test_metadata_of_another_version_are_refused_at_once(change: dict, message: str, tmp_path: Path) -> None:
    metadata = {'task': 'backbone', 'input': INPUT, 'mmevm_version': '9.9', **change}
    with pytest.raises(ValueError, match=f'copy.onnx cannot be loaded: .*{message}.*mmevm 9.9 wrote it'):
        load(write_model(tmp_path / 'copy.onnx', **metadata))
