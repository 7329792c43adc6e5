"""Label maps: what their values, colours and lists mean is decided for a dataset, not for each file."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmevm.data.reading import read_data
from mmevm.data.summary import refusal

from . import layouts

pytestmark = pytest.mark.openmmlab

BOTH = {'train': 4, 'val': 2}
BOM = '\ufeff'


def recolour(
    root: Path, colours: np.ndarray, change: Callable[[Image.Image], Image.Image] = lambda image: image
) -> Path:
    """Label maps in colours."""
    layouts.write_masks(root, BOTH)
    for index, path in enumerate(sorted((root / 'masks').rglob('*.png'))):
        labels = np.asarray(Image.open(path)) % 2 if index % 2 else np.asarray(Image.open(path))
        change(Image.fromarray(colours[labels])).save(path)
    return root


COLOURS = np.array([(0, 0, 0), (255, 255, 255), (255, 0, 0)], np.uint8)


def test_a_colour_is_the_same_class_in_grey_and_coloured_label_maps(tmp_path: Path) -> None:
    data = read_data(recolour(tmp_path, COLOURS))
    assert data.classes == ['#000000', '#ff0000', '#ffffff'] and refusal(data) is None
    (tmp_path / 'class_dict.csv').write_text('r;g;b;name\n0;0;0;sky\n255;255;255;road\n255;0;0;car\n')
    data = read_data(tmp_path)
    assert data.classes == ['sky', 'road', 'car'] and refusal(data) is None
    (tmp_path / 'class_dict.csv').rename(tmp_path / 'labelmap.txt')
    (tmp_path / 'labelmap.txt').write_text(
        '# label:color_rgb:parts:actions\nsky:0,0,0::\nroad:255,255,255::\ncar:255,0,0::\n'
    )
    assert read_data(tmp_path).values == {0: 0, 0xFFFFFF: 1, 0xFF0000: 2}


def test_grey_colours_may_have_names(tmp_path: Path) -> None:
    recolour(tmp_path, np.array([(0, 0, 0), (128, 128, 128), (255, 255, 255)], np.uint8))
    (tmp_path / 'class_dict.csv').write_text('name,r,g,b\na,0,0,0\nb,128,128,128\nc,255,255,255\n')
    data = read_data(tmp_path)
    assert data.classes == ['a', 'b', 'c'] and refusal(data) is None


def test_blue_is_a_class(tmp_path: Path) -> None:
    data = read_data(recolour(tmp_path, np.array([(0, 0, 0), (0, 0, 128), (0, 0, 255)], np.uint8)))
    assert data.classes == ['#000000', '#000080', '#0000ff'] and not any(
        'ignored' in note for note in data.findings.notes
    )


def test_palettes_that_differ_are_read_by_their_colours(tmp_path: Path) -> None:
    recolour(tmp_path, np.array([(0, 0, 0), (0, 128, 0), (128, 0, 0)], np.uint8), lambda image: image.quantize(8))
    data = read_data(tmp_path)
    assert data.classes == ['#000000', '#008000', '#800000'] and refusal(data) is None
    palettes = {tuple(Image.open(str(sample.mask)).getpalette()[:6]) for sample in data.samples()}
    assert len(palettes) > 1


def test_equal_palettes_are_read_by_index_or_by_the_colours_of_a_file(tmp_path: Path) -> None:
    layouts.write_masks(tmp_path, BOTH)
    for path in (tmp_path / 'masks').rglob('*.png'):
        image = Image.fromarray(np.asarray(Image.open(path)), 'P')
        image.putpalette([0, 0, 0, 0, 128, 0, 128, 0, 0])
        image.save(path)
    assert read_data(tmp_path).classes == ['0', '1', '2']
    (tmp_path / 'class_dict.csv').write_text('name,r,g,b\na,0,0,0\nb,0,128,0\nc,128,0,0\n')
    data = read_data(tmp_path)
    assert data.classes == ['a', 'b', 'c'] and refusal(data) is None


def test_lists_of_label_maps_name_images(tmp_path: Path) -> None:
    layouts.write_masks(tmp_path, {'': 6})
    (tmp_path / 'train.txt').write_text(BOM + '0000\n0001\n0004\n', encoding='utf-8')
    (tmp_path / 'val.txt').write_text('0002\n0003\n')
    data = read_data(tmp_path)
    assert refusal(data) is None and {name: len(part.samples) for name, part in data.splits.items()} == {
        'train': 3,
        'val': 2,
    }
    assert next(items for heading, items in data.findings.notes.items() if 'no list names' in heading) == [
        str(tmp_path / 'images/0005.jpg')
    ]
    (tmp_path / 'masks/0005.png').unlink()  # of no list: nobody misses it
    assert refusal(read_data(tmp_path)) is None
    (tmp_path / 'val.txt').write_text('0002\n0009\n')
    assert re.search(r'Names in \S*val.txt that no image has:\n  0009', refusal(read_data(tmp_path)) or '')


@pytest.mark.parametrize('count', [255, 256, 300])
def test_a_label_map_has_255_classes_at_most(count: int, tmp_path: Path) -> None:
    root = layouts.write_masks(tmp_path / 'data', {'train': 3, 'val': 2})
    rows = [f'c{index},{index % 256},{index // 256},7' for index in range(count)]
    (root / 'class_dict.csv').write_text('\n'.join(['name,r,g,b', *rows]))
    for path in root.glob('masks/*/*.png'):
        values = np.asarray(Image.open(path))
        Image.fromarray(np.stack([values, 0 * values, 0 * values + 7], axis=2)).save(path)
    message = refusal(read_data(root))
    assert (message is None) == (count == 255)
    assert count == 255 or f'at most 255 classes, because 255 marks pixels without one; there are: {count} in' in (
        message or ''
    ).replace('\n  ', ' ')


def test_names_that_are_given_to_colours_by_their_order_are_noted(tmp_path: Path) -> None:
    root = layouts.write_masks(tmp_path / 'data', {'train': 3, 'val': 2})
    (root / 'classes.txt').write_text('sky\nroad\ntree')
    for path in root.glob('masks/*/*.png'):
        values = np.asarray(Image.open(path))
        Image.fromarray(np.stack([values * 100, 0 * values, 0 * values], axis=2)).save(path)
    notes = read_data(root).findings.notes
    (found,) = (items for heading, items in notes.items() if 'names no colours' in heading)
    assert found == ["#000000 is 'sky'", "#640000 is 'road'", "#c80000 is 'tree'"]
