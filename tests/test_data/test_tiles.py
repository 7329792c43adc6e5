"""Tiles: where they begin, what they have of objects, and the dataset that they make."""

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmevm.apis.tile_data import main
from mmevm.data.reading import read_data
from mmevm.data.records import Thing
from mmevm.data.tiles import Tiling, cut
from mmevm.errors import UsageError

from . import layouts


@pytest.mark.parametrize(
    'length, starts',
    [(20, [0]), (32, [0]), (33, [0, 1]), (56, [0, 24]), (57, [0, 12, 25]), (100, [0, 23, 45, 68])],
)
def test_tiles_cover_an_edge_evenly_and_overlap(length: int, starts: list[int]) -> None:
    tiling = Tiling(32, 8)
    assert tiling.starts(length) == starts
    assert all(after - before <= 24 for before, after in pairwise(starts))
    assert starts[-1] == max(length - 32, 0)


@pytest.mark.parametrize('size, overlap, share', [(32, 32, 0.5), (32, -1, 0.5), (32, 8, 0.0), (32, 8, 1.5)])
def test_impossible_tilings_are_refused(size: int, overlap: int, share: float) -> None:
    with pytest.raises(UsageError, match='Expected'):
        Tiling(size, overlap, share)


def test_a_tile_of_no_size_is_not_blamed_on_the_overlap() -> None:
    for size in (0, -5):
        with pytest.raises(UsageError, match=f'tiles of at least 1 pixel, got {size}'):
            Tiling(size, -10)


@pytest.mark.parametrize('place', ['file', 'file/below', 'photographs/tiles'])
def test_tiles_need_a_folder_apart_from_the_dataset(place: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    source = layouts.write_voc(tmp_path / 'photographs', {'train': 2, 'val': 1})
    (tmp_path / 'file').touch()
    before = sorted(tmp_path.rglob('*'))
    assert main([str(source), str(tmp_path / place), '--size', '32', '--overlap', '8']) == 2
    expected = 'is inside the dataset' if 'photo' in place else 'file is not a folder'
    assert expected in capsys.readouterr().err
    assert sorted(tmp_path.rglob('*')) == before


@pytest.mark.parametrize(
    'box, expected, crowd',
    [
        ((12, 14, 6, 4), (2, 4, 6, 4), False),
        ((4, 14, 12, 4), (0, 4, 6, 4), False),  # half of it is inside
        ((3, 14, 12, 4), (0, 4, 5, 4), True),
        ((25, 26, 10, 10), (15, 16, 5, 4), True),
        ((29.5, 14, 6, 4), None, False),  # half a pixel
        ((40, 14, 6, 4), None, False),
    ],
)
def test_an_object_is_kept_by_the_share_of_its_box(box: tuple, expected: tuple | None, crowd: bool) -> None:
    part = cut(Thing(3, box), 10, 10, 20, 20, 0.5)
    assert (part and (part.category, part.box, part.crowd)) == (expected and (3, expected, crowd))


def test_crowd_objects_stay_crowd() -> None:
    assert cut(Thing(0, (2, 2, 4, 4), crowd=True), 0, 0, 20, 20, 0.5).crowd


def test_a_dataset_of_tiles_has_every_pixel_and_object(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = layouts.write_voc(tmp_path / 'photographs', {'train': 2, 'val': 1})
    monkeypatch.chdir(tmp_path)
    arguments = ['--size', '40', '--overlap', '24', '--share', '0.9', '--whole', 'val']
    assert main(['photographs', 'tiles', *arguments]) == 0
    assert 'train: 12 images' in capsys.readouterr().out
    tiles, whole = read_data(tmp_path / 'tiles'), read_data(source)
    assert tiles.findings.problems == tiles.findings.faults == {} and tiles.classes == whole.classes
    # 64 x 48 pixels: tiles begin at 0, 12 and 24, and at 0 and 8.
    [corner] = (tmp_path / 'tiles/train').glob('00000_*_24_8.*')
    original = np.array(Image.open(whole.splits['train'].samples[0].path))
    np.testing.assert_allclose(
        np.array(Image.open(corner)), original[8:, 24:], atol=0 if corner.suffix == '.png' else 40
    )
    content = json.loads((tmp_path / 'tiles/annotations/train.json').read_text())
    names = {image['id']: image['file_name'] for image in content['images']}
    here = [item for item in content['annotations'] if names[item['image_id']] == f'train/{corner.name}']
    # The first object, at 4 to 24 of 64 columns, is elsewhere.
    assert [(item['bbox'], item['iscrowd']) for item in here] == [([6, 12, 24, 20], 0)]
    (copied,) = tiles.splits['val'].samples
    assert (copied.size, [thing.box for thing in copied.things]) == (
        layouts.SIZE,
        [thing.box for thing in whole.splits['val'].samples[0].things],
    )


def test_images_of_four_bands_stay_so(tmp_path: Path) -> None:
    from tifffile import imread

    layouts.paint(tmp_path / 'in/train/0.tif', 0, bands=4)
    layouts.write_json(tmp_path / 'in/train/_annotations.coco.json', layouts.coco(['0.tif'], polygons=False))
    layouts.paint(tmp_path / 'in/valid/1.tif', 1, bands=4)
    layouts.write_json(tmp_path / 'in/valid/_annotations.coco.json', layouts.coco(['1.tif'], 1, polygons=False))
    assert main([str(tmp_path / 'in'), str(tmp_path / 'out'), '--size', '32', '--overlap', '0']) == 0
    found = sorted((tmp_path / 'out/train').iterdir())
    assert [path.name for path in found] == [f'00000_0_{x}_{y}.tif' for x in (0, 32) for y in (0, 16)]
    np.testing.assert_array_equal(imread(found[0]), imread(tmp_path / 'in/train/0.tif')[:32, :32])


def test_folders_with_files_and_other_data_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    boxes = layouts.write_voc(tmp_path / 'boxes', {'train': 1, 'val': 1})
    classes = layouts.write_folders(tmp_path / 'classes', {'train': 1, 'val': 1})
    assert main([str(boxes), str(boxes)]) == 2
    assert 'is not empty. Give a new folder' in capsys.readouterr().err
    assert main([str(classes), str(tmp_path / 'out')]) == 2
    assert 'Expected a dataset of boxes' in capsys.readouterr().err
    assert not (tmp_path / 'out').exists()
