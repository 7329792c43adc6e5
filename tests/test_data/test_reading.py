"""Users' datasets in every layout: what is read of them, and how they are divided."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmevm.data import masks, splits
from mmevm.data.reading import read_data
from mmevm.data.records import UserData, split_of
from mmevm.data.summary import refusal
from mmevm.errors import UsageError

from . import layouts
from .layouts import CLASSES, boxes, coco, paint, write_json

pytestmark = pytest.mark.openmmlab

BOTH = {'train': 4, 'val': 2}


def objects(data: UserData) -> list[tuple]:
    """Class, box and polygon of every object, by the number of its image."""
    found = []
    for sample in data.samples():
        for thing in sample.things:
            box = tuple(round(value, 2) for value in thing.box)
            found.append((Path(sample.path).stem[:4], data.classes[thing.category], box))
    return sorted(found)


def expected(count: int) -> list[tuple]:
    return sorted((f'{i:04d}', CLASSES[c], (x, y, w, h)) for i in range(count) for c, x, y, w, h in boxes(i))


def flat_coco(root: Path) -> Path:
    """One file beside the images."""
    names = [paint(root / f'{index:04d}.jpg', index).name for index in range(6)]
    return write_json(root / 'labels.json', coco(names))


def foreign_coco(root: Path) -> Path:
    """Files named by another machine's paths, and no size, area or id of annotations."""
    for split, numbers in dict(train=range(4), val=range(4, 6)).items():
        names = [f'C:\\data\\{split}\\{paint(root / "images" / split / f"{i:04d}.jpg", i).name}' for i in numbers]
        content = coco(names, numbers[0], ids=(7, 3, 5))
        for image in content['images']:
            del image['width'], image['height']
        for item in content['annotations']:
            del item['area'], item['id'], item['iscrowd']
        write_json(root / f'{split}.json', content)
    return root


def roboflow_yolo(root: Path) -> Path:
    """Roboflow's export: ``train/images``, ``valid/images``, and a file whose paths are a level off."""
    layouts.write_yolo(root / 'x', BOTH, polygons=True)
    for split, name in (('train', 'train'), ('val', 'valid')):
        for kind in ('images', 'labels'):
            (root / name).mkdir(exist_ok=True)
            (root / 'x' / kind / split).rename(root / name / kind)
    shutil.rmtree(root / 'x')
    text = f'train: ../train/images\nval: ../valid/images\nnc: 3\nnames: {list(CLASSES)}\n'
    (root / 'data.yaml').write_text(text)
    return root


def listed_yolo(root: Path) -> Path:
    """Text files that list the images, and label files beside them, as Darknet has them."""
    for split, numbers in dict(train=range(4), val=range(4, 6)).items():
        paths = [paint(root / 'data' / f'{index:04d}.jpg', index) for index in numbers]
        for index, path in zip(numbers, paths, strict=True):
            path.with_suffix('.txt').write_text('\n'.join(map(layouts.yolo_line, boxes(index))))
        (root / f'{split}.txt').write_text('\n'.join(f'./data/{path.name}' for path in paths))
    (root / 'my.yml').write_text(f'train: [train.txt]\nval: val.txt\nnames: {list(CLASSES)}')
    return root / 'my.yml'


def flat_voc(root: Path) -> Path:
    """Roboflow's export: XML files beside the images of each split."""
    for split, numbers in dict(train=range(4), valid=range(4, 6)).items():
        for index in numbers:
            path = paint(root / split / f'{index:04d}.jpg', index)
            path.with_suffix('.xml').write_text(layouts.voc_xml(index, path.name))
    return root


DETECTION: dict[str, tuple[Callable[[Path], Path], str, bool]] = {
    'COCO': (lambda root: layouts.write_coco(root, {'train2017': 4, 'val2017': 2}), 'COCO', True),
    'COCO by Roboflow': (lambda root: layouts.write_roboflow(root, {'train': 4, 'valid': 2}), 'COCO', True),
    'COCO beside the images': (flat_coco, 'COCO', True),
    'COCO of another machine': (foreign_coco, 'COCO', True),
    'YOLO': (lambda root: layouts.write_yolo(root, BOTH), 'YOLO', False),
    'YOLO polygons by Roboflow': (roboflow_yolo, 'YOLO', True),
    'YOLO lists': (listed_yolo, 'YOLO', False),
    'VOC': (lambda root: layouts.write_voc(root, BOTH), 'Pascal VOC', False),
    'VOC in VOCdevkit': (
        lambda root: layouts.write_voc(root / 'VOCdevkit/VOC2012', BOTH).parents[1],
        'Pascal VOC',
        False,
    ),
    'VOC beside the images': (flat_voc, 'Pascal VOC', False),
}


@pytest.mark.parametrize('name', DETECTION)
def test_objects_are_read_exactly(name: str, tmp_path: Path) -> None:
    write, layout, polygons = DETECTION[name]
    data = read_data(write(tmp_path))
    assert refusal(data) is None
    assert (data.kind, data.layout, sorted(data.classes)) == ('detection', layout, list(CLASSES))
    assert objects(data) == expected(6)
    assert data.has_shapes == polygons
    sizes = {split: len(part.samples) for split, part in data.splits.items()}
    assert sizes == BOTH


def test_class_folders_with_and_without_splits(tmp_path: Path) -> None:
    data = read_data(layouts.write_folders(tmp_path / 'a', {'train': 3, 'valid': 1, 'test': 2}))
    assert {split: len(part.samples) for split, part in data.splits.items()} == {'train': 9, 'val': 3, 'test': 6}
    data = read_data(layouts.write_folders(tmp_path / 'b', {'': 5}))
    assert data.classes == list(CLASSES) and refusal(data) is None
    for part in data.splits.values():
        assert {sample.label for sample in part.samples} == {0, 1, 2}
    assert all(Path(sample.path).parent.name == data.classes[sample.label] for sample in data.samples())
    assert any('drawn for it (seed 0' in note for note in data.findings.notes)


@pytest.mark.parametrize('folder, ending', [('masks', ''), ('labels', '_mask'), ('annotations', '_L')])
def test_label_maps_are_matched_by_name(folder: str, ending: str, tmp_path: Path) -> None:
    data = read_data(layouts.write_masks(tmp_path, BOTH, masks=folder, ending=ending))
    assert data.kind == 'segmentation' and data.classes == ['0', '1', '2'] and refusal(data) is None
    assert all(Path(s.mask).stem == Path(s.path).stem + ending for s in data.samples())


def test_label_maps_below_the_folders_of_splits(tmp_path: Path) -> None:
    data = read_data(layouts.write_masks_by_split(tmp_path, BOTH))
    assert {split: len(part.samples) for split, part in data.splits.items()} == BOTH


@pytest.mark.parametrize(
    'values, text, classes, mapping, direct, from_one',
    [
        ((0, 1, 2), None, ['0', '1', '2'], {0: 0, 1: 1, 2: 2}, True, False),
        ((0, 1, 255), None, ['0', '1'], {0: 0, 1: 1}, True, False),
        ((0, 255), None, ['0', '255'], {0: 0, 255: 1}, False, False),
        ((0, 255), 'road\nsky', ['road', 'sky'], {0: 0, 255: 1}, False, False),
        ((0, 1, 2), 'sky\nroad\ntree\nsea', ['sky', 'road', 'tree', 'sea'], {0: 0, 1: 1, 2: 2, 3: 3}, True, False),
        ((0, 1, 2), 'road\nsky', ['road', 'sky'], {1: 0, 2: 1}, False, True),
        ((10, 20, 30), 'a\nb\nc', ['a', 'b', 'c'], {10: 0, 20: 1, 30: 2}, False, False),
        (
            (0, 7, 9),
            '{"0": "void", "9": "car", "7": "road"}',
            ['void', 'road', 'car'],
            {0: 0, 7: 1, 9: 2},
            False,
            False,
        ),
        ((0, 1, 2), '["a", "b", "c"]', ['a', 'b', 'c'], {0: 0, 1: 1, 2: 2}, True, False),
    ],
)
def test_classes_of_label_maps(
    values: tuple, text: str, classes: list, mapping: dict, direct: bool, from_one: bool, tmp_path: Path
) -> None:
    layouts.write_masks(tmp_path, BOTH, values)
    if text:
        (tmp_path / ('classes.json' if text[0] in '{[' else 'classes.txt')).write_text(text)
    data = read_data(tmp_path)
    assert (data.classes, data.values) == (classes, mapping) and refusal(data) is None
    assert (masks.is_direct(data), masks.counts_from_one(data)) == (direct, from_one)


@pytest.mark.parametrize('names, everywhere', [('road\nsky\nsea', False), ('background\ncat\ndog', True)])
def test_a_value_that_is_one_too_high_does_not_move_the_others(names: str, everywhere: bool, tmp_path: Path) -> None:
    layouts.write_masks(tmp_path, BOTH)
    (tmp_path / 'classes.txt').write_text(names)
    for path in sorted((tmp_path / 'masks').rglob('*.png'))[: None if everywhere else 1]:
        labels = np.array(Image.open(path))
        labels[:3, :3] = 3
        Image.fromarray(labels).save(path)
    data = read_data(tmp_path)
    assert data.values == {0: 0, 1: 1, 2: 2} and 'beyond the 3 classes' in (refusal(data) or '')


def test_colours_are_classes(tmp_path: Path) -> None:
    layouts.write_masks(tmp_path, BOTH)
    colours = np.array([[0, 0, 0], [0, 0, 255], [200, 10, 0]], np.uint8)
    for path in (tmp_path / 'masks').rglob('*.png'):
        Image.fromarray(colours[np.array(Image.open(path))]).save(path)
    (tmp_path / 'class_dict.csv').write_text('name,r,g,b\nvoid,0,0,0\nsea,0,0,255\nland,200,10,0\n')
    data = read_data(tmp_path)
    assert data.classes == ['void', 'sea', 'land'] and refusal(data) is None
    sample = data.splits['train'].samples[0]
    assert np.array_equal(
        masks.class_ids(masks.read_mask(sample.mask, data.colours), data.values), layouts.label_map(0)
    )


def test_a_folder_of_several_layouts_is_read_for_the_task(tmp_path: Path) -> None:
    layouts.write_voc(tmp_path, BOTH)
    for index in range(6):
        path = tmp_path / f'SegmentationClass/{index:04d}.png'
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(layouts.label_map(index)).save(path)
    (tmp_path / 'ImageSets/Segmentation').mkdir()
    (tmp_path / 'ImageSets/Segmentation/train.txt').write_text('0000\n0002\n0001')
    (tmp_path / 'ImageSets/Segmentation/val.txt').write_text('0003\n')
    assert read_data(tmp_path, 'detection').layout == 'Pascal VOC'
    data = read_data(tmp_path, 'segmentation')
    assert {split: len(part.samples) for split, part in data.splits.items()} == {'train': 3, 'val': 1}


def test_lists_of_names_divide_label_maps(tmp_path: Path) -> None:
    layouts.write_masks(tmp_path, {'': 5})
    (tmp_path / 'train.txt').write_text('0000\n0001\n0004\n')
    (tmp_path / 'val.txt').write_text('images/0002.jpg\n0003.jpg\n')
    data = read_data(tmp_path)
    assert {split: len(part.samples) for split, part in data.splits.items()} == {'train': 3, 'val': 2}


def test_a_folder_in_a_folder_is_found(tmp_path: Path) -> None:
    layouts.write_folders(tmp_path / 'archive/animals', {'training_set': 2, 'test_set': 1})
    data = read_data(tmp_path)
    assert data.root == tmp_path / 'archive/animals' and data.classes == list(CLASSES)
    assert len(data.splits['train'].samples) == 6


def test_yolo_may_validate_on_its_training_images(tmp_path: Path) -> None:
    yaml = 'train: images/train\nval: images/train\nnames: [cat, dog, owl]'
    data = read_data(layouts.write_yolo(tmp_path, BOTH, yaml=yaml))
    assert refusal(data) is None and len(data.splits['val'].samples[0].things) == 2
    assert any('the same images for training and validation' in note for note in data.findings.notes)


def test_the_made_split_has_every_class_twice_and_is_the_same_every_time() -> None:
    classes = [{0}] * 50 + [{1}] * 5 + [{2}] * 2 + [{3}] + [set()] * 20
    chosen = splits.choose(classes)
    assert chosen == splits.choose(classes) != splits.choose(classes, seed=1)
    assert abs(len(chosen) - 0.2 * len(classes)) <= 1
    inside = [sum(number in classes[i] for i in chosen) for number in range(4)]
    assert inside == [10, 1, 1, 0]


def test_a_test_split_stands_in_for_validation(tmp_path: Path) -> None:
    data = read_data(layouts.write_folders(tmp_path, {'train': 3, 'test': 2}))
    assert len(data.splits['val'].samples) == 6
    assert any('the test split stands in' in note for note in data.findings.notes)


@pytest.mark.parametrize(
    'name, split',
    [
        ('instances_train2017', 'train'),
        ('valid', 'val'),
        ('minival2014', 'val'),
        ('Testing', 'test'),
        ('trained', None),
    ],
)
def test_names_of_splits(name: str, split: str | None) -> None:
    assert split_of(name) == split


@pytest.mark.parametrize(
    'make', [lambda root: None, lambda root: (root / 'docs').mkdir(), lambda root: paint(root / 'a.jpg', 0)]
)
def test_other_folders_are_refused_with_the_layouts_that_are_known(make: Callable, tmp_path: Path) -> None:
    make(tmp_path)
    with pytest.raises(UsageError, match=r'not a dataset of a known layout.*Expected a COCO file'):
        read_data(tmp_path)
    with pytest.raises(UsageError, match='does not exist'):
        read_data(tmp_path / 'missing')


def test_several_coco_files_for_a_split_are_refused(tmp_path: Path) -> None:
    layouts.write_coco(tmp_path, {'train2017': 2})
    folder = tmp_path / 'annotations'
    shutil.copy(folder / 'instances_train2017.json', folder / 'captions_train2017.json')
    assert len(list(read_data(tmp_path).samples())) == 2
    shutil.copy(folder / 'instances_train2017.json', folder / 'instances_train_b.json')
    with pytest.raises(UsageError, match='Several COCO files may be meant'):
        read_data(tmp_path)


def test_without_supervision_the_message_says_what_to_install(tmp_path: Path, monkeypatch) -> None:
    from mmevm.data.supervision import formats

    layouts.write_yolo(tmp_path, BOTH)
    monkeypatch.setitem(__import__('sys').modules, 'supervision.dataset.formats.yolo', None)
    formats.cache_clear()
    with pytest.raises(UsageError, match=r'pip install "mmevm\[data\]"'):
        read_data(tmp_path)
    formats.cache_clear()


def test_nothing_is_written_to_the_users_folder(tmp_path: Path) -> None:
    layouts.write_yolo(tmp_path, BOTH)
    before = sorted((path, os.stat(path).st_mtime_ns) for path in tmp_path.rglob('*'))
    read_data(tmp_path)
    assert sorted((path, os.stat(path).st_mtime_ns) for path in tmp_path.rglob('*')) == before
