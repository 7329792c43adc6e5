"""Class folders, images and label maps: what is beside them, what passes for them, and values that are no classes."""

import io
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from mmevm.data.reading import read_data
from mmevm.data.summary import refusal
from mmevm.errors import UsageError

from . import layouts
from .layouts import CLASSES, paint
from .test_reader_faults import counts, noted

pytestmark = pytest.mark.openmmlab

BOTH = {'train': 4, 'val': 2}
OUTSIDE = 'Images outside of the folders of classes'
UNPAIRED = 'outside of the folders that are used'


def write_large(root: Path, values: Sequence[int], change: Callable[[Image.Image], Image.Image]) -> Path:
    """Images and label maps of 640 x 480, with changes of the latter."""
    layouts.write_masks(root, BOTH, values)
    for path in [*root.rglob('*.jpg'), *root.rglob('*.png')]:
        large = Image.open(path).resize((640, 480), Image.Resampling.NEAREST)
        (change(large) if path.suffix == '.png' else large).save(path)
    return root


def some_greys(image: Image.Image) -> Image.Image:
    """Edges of three greys."""
    labels = np.array(image)
    labels[:, 1:][(labels[:, :-1] == 0) & (labels[:, 1:] == 255)] = 90
    labels[1:][(labels[:-1] == 0) & (labels[1:] == 255)] = 200
    labels[:-1][(labels[:-1] == 0) & (labels[1:] == 90)] = 3
    return Image.fromarray(labels)


def as_jpeg(image: Image.Image) -> Image.Image:
    """What a JPEG file leaves of a label map."""
    buffer = io.BytesIO()
    image.save(buffer, 'JPEG', quality=40)
    return Image.open(buffer)


def blurred(image: Image.Image) -> Image.Image:
    """Edges of all greys."""
    return image.filter(ImageFilter.GaussianBlur(3))


@pytest.mark.parametrize('change', [some_greys, as_jpeg, blurred])
def test_blurred_edges_are_no_classes(change: Callable, tmp_path: Path) -> None:
    root = write_large(tmp_path, (0, 255), change)
    message = refusal(read_data(root)) or ''
    assert re.search(
        r'nearly all pixels have 0 or 25\d, and the others are blurred edges.*\n  \S*png: \d+ val', message
    )


@pytest.mark.parametrize(
    'values',
    [
        (0, 1, 2, 3, 4),
        (0, 100, 200),
        (0, 60, 120, 180, 240),
        (0, 1, 2, 3, 255),
        (0, 7, 11, 24, 33),
        (0, 3, 90, 200, 255),
        (0, 1, 3, 254, 255),
    ],
)
def test_small_objects_are_classes_whatever_their_values(values: tuple, tmp_path: Path) -> None:
    def shrink(image: Image.Image) -> Image.Image:
        labels = np.zeros((480, 640), np.uint8)
        for index, value in enumerate(values):
            labels[10 : 20 + index, 50 * index : 50 * index + 9] = value
        labels[100:110] = values[-1]
        return Image.fromarray(labels)

    data = read_data(write_large(tmp_path, values, shrink))
    assert refusal(data) is None
    assert data.classes == [str(value) for value in values if value != 255]


@pytest.mark.parametrize('values', [(0, 255), (1,)])
def test_pixels_of_one_class_alone_are_refused(values: tuple, tmp_path: Path) -> None:
    layouts.write_masks(tmp_path, BOTH, values)
    (tmp_path / 'classes.txt').write_text('bg\ncrack\nspall\n')
    message = refusal(read_data(tmp_path)) or ''
    assert (
        "all that have a class are of one:\n  'bg'" in message
        or "all that have a class are of one:\n  'crack'" in message
    )
    assert ('names no value 255' in message) == (255 in values)


def test_two_images_for_a_label_map_are_refused(tmp_path: Path) -> None:
    layouts.write_masks(tmp_path, BOTH)
    paint(tmp_path / 'images/train/0000.png', 5)
    message = refusal(read_data(tmp_path)) or ''
    assert re.search(
        r'Several images for one label map; .*\n  \S*masks/train/0000.png: \S*0000.jpg and \S*0000.png', message
    )


@pytest.mark.parametrize('name', ['work_dirs', 'runs', 'wandb', 'lightning_logs', 'Outputs', 'checkpoints'])
def test_training_runs_are_no_class(name: str, tmp_path: Path) -> None:
    layouts.write_folders(tmp_path, {'': 5})
    paint(tmp_path / name / 'vis/0.png', 0)
    data = read_data(tmp_path)
    assert data.classes == list(CLASSES) and refusal(data) is None
    assert noted(data, OUTSIDE) == [str(tmp_path / name)]


def test_names_of_classes_may_begin_with_marks(tmp_path: Path) -> None:
    layouts.write_folders(tmp_path, {'': 5})
    for name in ('__background__', '@home', '__MACOSX', '@eaDir', '.cache'):
        shutil.copytree(tmp_path / 'cat', tmp_path / name)
    assert read_data(tmp_path).classes == ['@home', '__background__', *CLASSES]


def paths(root: Path, text: str) -> list[str]:
    """Paths below a folder."""
    return [str(root / name) for name in text.split()]


def test_parts_without_label_maps_are_named(tmp_path: Path) -> None:
    layouts.write_masks(tmp_path, BOTH)
    for text in paths(
        tmp_path, 'images/test/a.jpg images/extra/a.jpg images/loose.jpg masks/extra/a.png masks/loose.png'
    ):
        paint(Path(text), 0)
    data = read_data(tmp_path)
    assert refusal(data) is None and counts(data) == BOTH
    assert noted(data, UNPAIRED) == paths(
        tmp_path, 'images/extra images/test images/loose.jpg masks/extra masks/loose.png'
    )


def test_splits_without_label_maps_are_named(tmp_path: Path) -> None:
    layouts.write_masks(tmp_path, {'train': 6, 'val': 2})
    (tmp_path / 'masks/val').rename(tmp_path / 'masks/validation_masks')
    assert noted(read_data(tmp_path), UNPAIRED) == paths(tmp_path, 'images/val masks/validation_masks')


def test_folders_of_another_arrangement_are_named(tmp_path: Path) -> None:
    layouts.write_masks_by_split(tmp_path / 'a', BOTH)
    (tmp_path / 'a/val/masks').rename(tmp_path / 'a/val/annot')
    assert counts(read_data(tmp_path / 'a')) == BOTH
    (tmp_path / 'a/val/annot').rename(tmp_path / 'a/val/drawn')
    assert noted(read_data(tmp_path / 'a'), UNPAIRED) == paths(tmp_path, 'a/val')
    layouts.write_masks_by_split(tmp_path / 'b', BOTH)
    layouts.write_masks(tmp_path / 'b', {'': 5})
    assert noted(read_data(tmp_path / 'b'), UNPAIRED) == paths(tmp_path, 'b/train b/val')


def test_images_beside_class_folders_are_named(tmp_path: Path) -> None:
    layouts.write_folders(tmp_path / 'a', {'train': 3, 'val': 2})
    for text in paths(tmp_path, 'a/extra/cat/x.jpg a/cat/y.jpg a/train/loose.jpg a/loose.jpg b/loose.jpg'):
        paint(Path(text), 0)
    data = read_data(tmp_path / 'a')
    assert refusal(data) is None and counts(data) == {'train': 9, 'val': 6}
    assert noted(data, OUTSIDE) == paths(tmp_path, 'a/cat a/extra a/train/loose.jpg a/loose.jpg')
    layouts.write_folders(tmp_path / 'b', {'': 5})
    assert noted(read_data(tmp_path / 'b'), OUTSIDE) == paths(tmp_path, 'b/loose.jpg')


@pytest.mark.parametrize(
    'images, maps',
    [
        ('leftImg8bit/{split}/aachen/{index}_leftImg8bit.png', 'gtFine/{split}/aachen/{index}_gtFine_labelIds.png'),
        ('original_images/{index}.jpg', 'label_images_semantic/{index}.png'),
        ('photos/{index}.jpg', 'SegmentationClassRaw/{index}.png'),
        ('{split}/photos/{index}.jpg', '{split}/ground_truth/{index}_mask.png'),
    ],
)
def test_images_and_label_maps_in_unknown_folders_are_no_classes(images: str, maps: str, tmp_path: Path) -> None:
    for index in range(6):
        place = {'split': 'train' if index < 4 else 'val', 'index': f'{index:03d}'}
        paint(tmp_path / images.format(**place), index)
        target = tmp_path / maps.format(**place)
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(layouts.label_map(index)).save(target)
    with pytest.raises(UsageError, match=r'looks like a dataset for segmentation: \S+ has label maps of the images in'):
        read_data(tmp_path)


def test_label_maps_of_labelme_are_read(tmp_path: Path) -> None:
    layouts.write_masks(tmp_path, {'': 6}, masks='SegmentationClassPNG')
    (tmp_path / 'images').rename(tmp_path / 'JPEGImages')
    data = read_data(tmp_path)
    assert data.kind == 'segmentation' and refusal(data) is None


def test_files_of_objects_beside_images_are_no_class_folders(tmp_path: Path) -> None:
    layouts.write_folders(tmp_path, {'': 5})
    images = [*tmp_path.rglob('*.png')]
    for path in images:
        layouts.write_json(path.with_suffix('.json'), {'author': 'me'})
    assert read_data(tmp_path).classes == list(CLASSES)
    for path in images:
        layouts.write_json(path.with_suffix('.json'), {'version': '5', 'shapes': [{'label': 'cat', 'points': []}]})
    with pytest.raises(UsageError, match=r'looks like a dataset for detection or segmentation: \S+\.json describes'):
        read_data(tmp_path)


@pytest.mark.parametrize('names', [('mask', 'no mask'), ('mask', 'face'), ('label', 'owl')])
def test_numbered_photographs_of_masks_are_classes(names: tuple, tmp_path: Path) -> None:
    for number, name in enumerate(names):
        for index in range(5):
            paint(tmp_path / name / f'{index}.png', 5 * number + index)
    data = read_data(tmp_path)
    assert data.classes == sorted(names) and refusal(data) is None


def test_classes_that_differ_in_case_are_named(tmp_path: Path) -> None:
    layouts.write_folders(tmp_path, {'': 5})
    (tmp_path / 'owl').rename(tmp_path / 'Cat')
    assert noted(read_data(tmp_path), 'differ in case alone') == paths(tmp_path, 'Cat cat')


@pytest.mark.parametrize('suffix', ['.jp2', '.dcm', '.tga', '.mpo', '.pbm'])
def test_images_that_are_not_read_are_named(suffix: str, tmp_path: Path) -> None:
    layouts.write_folders(tmp_path, {'': 5})
    path = tmp_path / f'cat/photo{suffix}'
    path.write_bytes(b'')
    assert noted(read_data(tmp_path), 'do not read') == [str(path)]
