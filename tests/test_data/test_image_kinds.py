"""Kinds of image files: what is read of them, and what tiles have of it."""

import sys
from pathlib import Path
from typing import Any

import mmcv
import numpy as np
import pytest
from PIL import Image

from mmevm.apis.tile_data import main
from mmevm.data import sheet, tiles
from mmevm.data.images import image_size, measure, read_pixels
from mmevm.data.reading import read_data
from mmevm.data.records import Sample
from mmevm.engine.checks.images import check_images
from mmevm.engine.checks.samples import Checks
from mmevm.engine.checks.tiff_files import tiff_fault
from mmevm.errors import UsageError

from . import layouts

pytestmark = pytest.mark.openmmlab

RGB = np.random.default_rng(0).integers(0, 256, (*layouts.SIZE[::-1], 3), dtype=np.uint8)
SMOOTH = Image.fromarray(RGB[::12, ::16]).resize(layouts.SIZE)
TILED = ['--size', '32', '--overlap', '0']


def bands(count: int, dtype: Any = np.uint8) -> np.ndarray:
    return np.random.default_rng(count).integers(0, 200, (*layouts.SIZE[::-1], count)).astype(dtype)


def write_tiff(path: Path, pixels: np.ndarray, **settings: Any) -> str:
    from tifffile import imwrite

    path.parent.mkdir(parents=True, exist_ok=True)
    imwrite(path, pixels, **settings)
    return str(path)


def write_data(root: Path, name: str) -> Path:
    """Annotations of an image for training, which the caller writes, and of one for validation."""
    layouts.write_json(root / 'train/_annotations.coco.json', layouts.coco([name], polygons=False))
    layouts.paint(root / 'valid/1.png', 1)
    layouts.write_json(root / 'valid/_annotations.coco.json', layouts.coco(['1.png'], 1, polygons=False))
    return root / 'train' / name


PLANES = {'planarconfig': 'separate', 'metadata': None}
INTERLEAVED = {'planarconfig': 'contig', 'metadata': None}


@pytest.mark.parametrize(
    'pixels, planes, settings',
    [
        pytest.param(bands(3), True, dict(PLANES, photometric='rgb'), id='planes of RGB'),
        pytest.param(bands(4), True, dict(PLANES, photometric='rgb'), id='planes of RGB and infrared'),
        pytest.param(bands(7, np.uint16), True, dict(PLANES, photometric='minisblack'), id='seven planes'),
        pytest.param(bands(4), False, {}, id='as tifffile writes four bands'),
        pytest.param(bands(1), False, {}, id='as tifffile writes one band'),
        pytest.param(bands(2, np.float32), False, {}, id='as tifffile writes two bands'),
        pytest.param(bands(7), False, {}, id='as tifffile writes seven bands'),
        pytest.param(bands(7), False, dict(INTERLEAVED, photometric='minisblack'), id='seven interleaved bands'),
        pytest.param(bands(1)[..., 0], False, {}, id='grey'),
    ],
)
def test_tiles_have_the_bands_of_a_tiff(pixels: np.ndarray, planes: bool, settings: dict, tmp_path: Path) -> None:
    path = write_data(tmp_path / 'in', '0.tif')
    write_tiff(path, np.moveaxis(pixels, -1, 0) if planes else pixels, **settings)
    assert image_size(str(path)) == sheet._read(str(path)).size == layouts.SIZE
    np.testing.assert_array_equal(read_pixels(str(path)), pixels)
    assert main([str(tmp_path / 'in'), str(tmp_path / 'out'), *TILED]) == 0
    for left in (0, 32):
        # As training reads them.
        tile = mmcv.imread(str(tmp_path / f'out/train/00000_0_{left}_0.tif'), 'unchanged', backend='tifffile')
        np.testing.assert_array_equal(tile, pixels[:32, left : left + 32])
    written = read_data(tmp_path / 'out')
    assert written.findings.problems == written.findings.faults == {}
    assert {sample.size for sample in written.splits['train'].samples} == {(32, 32)}
    assert sum(len(sample.things) for sample in written.splits['train'].samples) >= 2


@pytest.mark.parametrize('kind, noted', [(np.uint8, False), (np.uint16, True)])
@pytest.mark.parametrize('suffix', ['.png', '.tif'])
def test_images_of_16_bits_are_noted(kind: type, noted: bool, suffix: str, tmp_path: Path) -> None:
    for index in range(4):
        path = layouts.paint(tmp_path / f'data/{"ab"[index % 2]}/{index}{suffix}', index)
        Image.fromarray(bands(1, kind)[..., 0]).save(path)
    notes = read_data(tmp_path / 'data').findings.notes
    assert any('16 bits' in heading and len(items) == 4 for heading, items in notes.items()) == noted


@pytest.mark.parametrize(
    ('pixels', 'options', 'noted'),
    [
        (bands(4), {}, True),
        (bands(4), dict(photometric='rgb', extrasamples=['unspecified']), True),
        (bands(6), dict(INTERLEAVED, photometric='minisblack'), True),
        (bands(3), dict(photometric='rgb'), False),
        (bands(1)[..., 0], {}, False),
        (bands(4), dict(photometric='separated'), False),
    ],
    ids=['four', 'with colours', 'six', 'colours', 'grey', 'CMYK'],
)
def test_bands_beyond_colours_are_noted(pixels: np.ndarray, options: dict, noted: bool, tmp_path: Path) -> None:
    for index in range(4):
        path = layouts.paint(tmp_path / f'data/{"ab"[index % 2]}/{index}.tif', index)
        write_tiff(path, pixels, **options)
    notes = read_data(tmp_path / 'data').findings.notes
    assert any('more than three bands' in heading and len(items) == 4 for heading, items in notes.items()) == noted


@pytest.mark.parametrize(
    ('orientation', 'square', 'noted'),
    [(1, True, 0), (2, False, 4), (3, False, 4), (6, True, 4), (6, False, 0), (9, False, 0)],
)
@pytest.mark.parametrize('kind', ['masks', 'boxes', 'classes'])
def test_images_that_are_turned_are_noted_unless_sizes_agree(
    kind: str, orientation: int, square: bool, noted: int, tmp_path: Path
) -> None:
    stored = (48, 48) if square else (48, 64)
    shown = stored[::-1] if orientation in (6,) else stored
    exif = Image.Exif()
    exif[0x0112] = orientation
    for index in range(4):
        folder = f'data/{"ab"[index % 2]}' if kind == 'classes' else 'data/images/train'
        path = tmp_path / folder / f'{index}.jpg'
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((*stored, 3), np.uint8)).save(path, exif=exif)
        if kind == 'masks':
            (tmp_path / 'data/masks/train').mkdir(parents=True, exist_ok=True)
            mask = np.zeros(shown, np.uint8)
            mask[:8] = 1
            Image.fromarray(mask).save(tmp_path / f'data/masks/train/{index}.png')
    if kind == 'boxes':
        images = [dict(id=i, file_name=f'{i}.jpg', width=shown[1], height=shown[0]) for i in range(4)]
        things = [dict(id=i + 1, image_id=i, category_id=1, bbox=[4, 4, 20, 20], area=400, iscrowd=0) for i in range(4)]
        content = dict(images=images, annotations=things, categories=[dict(id=1, name='a')])
        layouts.write_json(tmp_path / 'data/images/train/_annotations.coco.json', content)
    data = read_data(tmp_path / 'data/images/train' if kind == 'boxes' else tmp_path / 'data')
    found = [len(items) for heading, items in data.findings.notes.items() if 'EXIF orientation' in heading]
    assert found == ([noted] if noted and kind != 'classes' else [])


@pytest.mark.parametrize('kind', [np.uint8, np.uint16])
def test_zero_may_be_white(kind: type, tmp_path: Path) -> None:
    path, grey = write_data(tmp_path / 'in', '0.tif'), bands(1, kind)[..., 0]
    write_tiff(path, np.iinfo(kind).max - grey, photometric='miniswhite')
    np.testing.assert_array_equal(read_pixels(str(path)), grey)


@pytest.mark.parametrize('pixels', [bands(1, np.float32)[..., 0], bands(4), bands(6)])
def test_values_that_are_no_greys_stay(pixels: np.ndarray, tmp_path: Path) -> None:
    path = write_data(tmp_path / 'in', '0.tif')
    write_tiff(path, pixels, photometric='separated' if pixels.shape[2:] == (6,) else 'miniswhite', **INTERLEAVED)
    np.testing.assert_array_equal(read_pixels(str(path)), pixels)


def test_what_is_converted_has_one_page_and_is_upright(tmp_path: Path) -> None:
    path = write_data(tmp_path / 'in', '0.tif')
    page = SMOOTH.quantize(64)
    page.save(path, format='TIFF', save_all=True, append_images=[page])
    with pytest.raises(UsageError, match='one page'):
        read_pixels(str(path))
    page.save(path, format='TIFF', tiffinfo={274: 6}, compression='tiff_lzw')
    with pytest.raises(UsageError, match='orientation'):
        read_pixels(str(path))


def test_tiffs_of_pages_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path = write_data(tmp_path / 'in', '0.tif')
    write_tiff(path, np.moveaxis(bands(4), -1, 0), photometric='minisblack')
    assert main([str(tmp_path / 'in'), str(tmp_path / 'out'), *TILED]) == 2
    assert f'{path}: expected an image of one page' in capsys.readouterr().err


@pytest.mark.parametrize('backend, refused', [('tifffile', True), ('cv2', False)])
@pytest.mark.parametrize('settings', [dict(PLANES, photometric='rgb'), dict(photometric='minisblack')])
def test_training_refuses_planes_that_its_decoder_misreads(
    backend: str, refused: bool, settings: dict, tmp_path: Path
) -> None:
    from mmseg.datasets import BaseSegDataset

    for index in range(2):
        planes = np.moveaxis(bands(4), -1, 0)
        path = write_tiff(tmp_path / f'{index}.tif', planes if index else bands(4), **(settings if index else {}))
    load = dict(type='LoadImageFromFile', color_type='unchanged', imdecode_backend=backend)
    dataset = BaseSegDataset(data_prefix=dict(img_path=str(tmp_path)), img_suffix='.tif', pipeline=[load])
    if refused:
        with pytest.raises(UsageError, match=rf'(?s)1 of 2 samples.*{path}: it is stored plane by plane'):
            check_images(dataset, Checks())
    else:
        assert check_images(dataset, Checks()) == 0


@pytest.mark.parametrize('mode', ['P', 'CMYK', '1', 'YCbCr'])
def test_training_refuses_values_that_are_not_what_is_seen(mode: str, tmp_path: Path) -> None:
    path = tmp_path / '0.tif'
    SMOOTH.convert(mode).save(path)
    fault = tiff_fault(str(path))
    assert fault is not None and 'save RGB or grey' in fault.reason


@pytest.mark.parametrize(
    'name, image, kind',
    [
        ('cmyk.jpg', SMOOTH.convert('CMYK'), 'JPEG'),
        ('grey.jpg', SMOOTH.convert('L'), 'JPEG'),
        ('colour.jpeg', SMOOTH, 'JPEG'),
        ('rgba.jpg', SMOOTH.convert('RGBA'), 'PNG'),
        ('grey_alpha.jpg', SMOOTH.convert('LA'), 'PNG'),
        ('palette.jpg', SMOOTH.quantize(64), 'PNG'),
        ('two.jpg', SMOOTH.convert('1'), 'PNG'),
        ('two.png', SMOOTH.convert('1'), 'PNG'),
        ('palette.png', SMOOTH.quantize(64), 'PNG'),
        ('palette.gif', SMOOTH.quantize(64), 'GIF'),
        ('grey_alpha.png', SMOOTH.convert('LA'), 'PNG'),
        ('deep.png', Image.fromarray(bands(1, np.uint16)[..., 0] * 300), 'PNG'),
        ('deep.jpg', Image.fromarray(bands(1, np.uint16)[..., 0] * 300), 'PNG'),
        ('rgba.webp', SMOOTH.convert('RGBA'), 'WEBP'),
        ('colour.tif', SMOOTH, 'TIFF'),
        ('grey.tif', SMOOTH.convert('L'), 'TIFF'),
        ('palette.tif', SMOOTH.quantize(64), 'TIFF'),
        ('cmyk.tif', SMOOTH.convert('CMYK'), 'TIFF'),
        ('two.tif', SMOOTH.convert('1'), 'TIFF'),
        ('ycbcr.tif', SMOOTH.convert('YCbCr'), 'TIFF'),
    ],
)
def test_tiles_look_like_the_image(name: str, image: Image.Image, kind: str, tmp_path: Path) -> None:
    path = write_data(tmp_path / 'in', name)
    image.save(path, format=kind)
    assert main([str(tmp_path / 'in'), str(tmp_path / 'out'), *TILED]) == 0
    (tile,) = (tmp_path / 'out/train').glob('*_32_0.*')
    expected, found = (mmcv.imread(str(file)).astype(int) for file in (path, tile))
    difference = np.abs(found - expected[:32, 32:])
    assert difference.mean() < 10 if tile.suffix in ('.jpg', '.jpeg') else difference.max() <= 1


def test_pgm_of_sixteen_bits(tmp_path: Path) -> None:
    pixels = bands(1, np.uint16)[..., 0] * 300
    (tmp_path / 'a.pgm').write_bytes(b'P5 %d %d 65535\n' % layouts.SIZE + pixels.astype('>u2').tobytes())
    np.testing.assert_array_equal(read_pixels(str(tmp_path / 'a.pgm')), pixels)


@pytest.mark.parametrize('error', [OSError('cannot write'), KeyboardInterrupt()])
@pytest.mark.parametrize('exists', [False, True])
def test_tiles_are_written_again_after_a_failure(
    error: BaseException, exists: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layouts.write_voc(tmp_path / 'in', {'train': 2, 'val': 1})
    arguments = [str(tmp_path / 'in'), str(tmp_path / 'out'), *TILED]
    if exists:
        (tmp_path / 'out').mkdir()
    write, count = tiles._write, []

    def fail(path: Path, pixels: np.ndarray) -> None:
        count.append(path)
        if len(count) == 6:
            raise error
        write(path, pixels)

    with monkeypatch.context() as patch, pytest.raises(type(error)):
        patch.setattr(tiles, '_write', fail)
        main(arguments)
    assert list((tmp_path / 'out').iterdir()) == []
    assert main(arguments) == 0 and len(list((tmp_path / 'out/train').iterdir())) == 8


@pytest.mark.parametrize('content', [b'II*\x00damaged', b''])
@pytest.mark.parametrize('name', ['a.tif', 'a.npy', 'a.png'])
def test_what_cannot_be_read_is_named(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError, match=f'{name} cannot be read: '):
        read_pixels(str(tmp_path / name))
    assert sheet._load(Sample(str(tmp_path / name))) is None


@pytest.mark.parametrize('name', ['a.tif', 'a.TIFF'])
def test_without_tifffile_it_is_asked_for(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_tiff(tmp_path / name, bands(4))
    monkeypatch.setitem(sys.modules, 'tifffile', None)
    for use in (image_size, read_pixels, lambda path: measure([Sample(path)])):
        with pytest.raises(UsageError, match='pip install tifffile'):
            use(path)


def test_without_tifffile_training_asks_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mmseg.datasets import BaseSegDataset

    write_tiff(tmp_path / '0.tif', bands(4))
    load = dict(type='LoadImageFromFile', color_type='unchanged', imdecode_backend='tifffile')
    dataset = BaseSegDataset(data_prefix=dict(img_path=str(tmp_path)), img_suffix='.tif', pipeline=[load])
    monkeypatch.setitem(sys.modules, 'tifffile', None)
    with pytest.raises(UsageError, match='pip install tifffile'):
        check_images(dataset, Checks())
