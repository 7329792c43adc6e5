"""What readers of layouts took for something else, dropped without a word, or met with a traceback."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mmevm.data.reading import read_data
from mmevm.data.records import UserData
from mmevm.data.summary import refusal
from mmevm.errors import UsageError

from . import layouts
from .layouts import CLASSES, boxes, paint
from .test_silent_failures import edit_objects, trained_on

pytestmark = pytest.mark.openmmlab

BOTH = {'train': 4, 'val': 2}


def noted(data: UserData, part: str) -> list[str]:
    """The items of the notes whose heading has this text."""
    return [item for heading, items in data.findings.notes.items() if part in heading for item in items]


def counts(data: UserData) -> dict[str, int]:
    """Images by split."""
    return {name: len(split.samples) for name, split in data.splits.items()}


@pytest.mark.parametrize('value', [1, True, 2])
@pytest.mark.parametrize('others', [{}, {'iscrowd': 1}, {'area': 0}], ids=['as it is', 'crowds', 'rewritten'])
def test_coco_objects_to_ignore_are_crowds(others: dict, value: Any, tmp_path: Path) -> None:
    root = edit_objects(tmp_path, lambda item: item.update(ignore=value, **others))
    assert 'train has no object of any class, but crowds' in (refusal(read_data(root)) or '')


@pytest.mark.parametrize('others', [{}, {'area': 0}], ids=['as it is', 'rewritten'])
@pytest.mark.parametrize('value, count', [(1, 4), (0, 8), (None, 8)])
def test_some_coco_objects_to_ignore_are_not_trained_on(value: Any, count: int, others: dict, tmp_path: Path) -> None:
    def change(item: dict) -> None:
        item.update(others)
        if item['id'] % 2:
            item.update(ignore=value)

    root = edit_objects(tmp_path / 'data', change)
    # As it is, pycocotools would still expect a detector to find what MMDetection was not trained on.
    assert bool(read_data(root).splits['val'].annotations) == (not others and not value)
    assert trained_on(root, tmp_path / 'work') == count


@pytest.mark.parametrize(
    'values, classes, is_ignored',
    [
        ((0, 255), ['0', '255'], False),
        ((0, 1), ['0', '1'], False),
        ((0, 1, 255), ['0', '1'], True),
        ((3, 5, 255), ['3', '5'], True),
        ((1, 255), ['1'], True),
        ((5, 255), ['5'], True),
        ((255,), [], True),
    ],
)
def test_255_is_a_class_beside_0_alone(values: tuple, classes: list, is_ignored: bool, tmp_path: Path) -> None:
    data = read_data(layouts.write_masks(tmp_path, BOTH, values))
    assert data.classes == classes
    assert any('value 255 have no class' in heading for heading in data.findings.notes) == is_ignored
    message = refusal(data) or ''
    assert bool(message) == ('255 is none unless classes.json names it' in message) == (len(classes) < 2)
    if len(values) == 2:
        (tmp_path / 'classes.json').write_text(json.dumps(dict(zip(map(str, values), 'ab', strict=True))))
        assert read_data(tmp_path).classes == ['a', 'b'] and refusal(read_data(tmp_path)) is None


def sites(root: Path, *names: str) -> Path:
    """Images and label maps of these names."""
    for index, name in enumerate(names):
        layouts.write_masks(root / 'x', {'': 1})
        for kind, suffix in (('images', '.jpg'), ('masks', '.png')):
            target = root / kind / f'{name}{suffix}'
            target.parent.mkdir(parents=True, exist_ok=True)
            paint(target, index) if kind == 'images' else shutil.move(root / 'x/masks/0000.png', target)
    shutil.rmtree(root / 'x')
    return root


SITES = ('site1/001', 'site2/001', 'site2/002', '003', 'site1/003', 'a.b')


@pytest.mark.parametrize(
    'line, name',
    [
        ('site1/001', 'site1/001'),
        ('site2/001', 'site2/001'),
        ('site1/001.jpg', 'site1/001'),
        ('./site1/001.png', 'site1/001'),
        ('images/site1/001', 'site1/001'),
        ('/home/me/data/images/site1/001.jpg', 'site1/001'),
        ('C:\\data\\site1\\001.jpg', 'site1/001'),
        ('images/site1/001.jpg masks/site1/001.png', 'site1/001'),
        ('002', 'site2/002'),
        ('elsewhere/002.jpg', 'site2/002'),
        ('003', '003'),
        ('images/003.jpg', '003'),
        ('site1/003', 'site1/003'),
        ('a.b', 'a.b'),
        ('images/a.b.jpg', 'a.b'),
    ],
)
def test_lists_name_images_with_their_folders(line: str, name: str, tmp_path: Path) -> None:
    sites(tmp_path, *SITES)
    (tmp_path / 'train.txt').write_text(line)
    (tmp_path / 'val.txt').write_text('\n'.join(other for other in SITES if other != name))
    data = read_data(tmp_path)
    assert refusal(data) is None and counts(data) == {'train': 1, 'val': len(SITES) - 1}
    (sample,) = data.splits['train'].samples
    assert (sample.path, sample.mask) == (str(tmp_path / f'images/{name}.jpg'), str(tmp_path / f'masks/{name}.png'))


@pytest.mark.parametrize('line', ['001', '001.jpg', 'site3/001', '/data/001.jpg'])
def test_names_of_several_images_in_lists_are_refused(line: str, tmp_path: Path) -> None:
    sites(tmp_path, *SITES)
    (tmp_path / 'train.txt').write_text(f'{line}\n002')
    (tmp_path / 'val.txt').write_text('003')
    pattern = r'train.txt that several images have; .*\n  ' + re.escape(line) + r': \S*site1/001.jpg, \S*site2/001.jpg'
    assert re.search(pattern, refusal(read_data(tmp_path)) or '')


def test_images_that_differ_in_their_suffix_are_told_apart_by_it(tmp_path: Path) -> None:
    sites(tmp_path, '001', '002')
    paint(tmp_path / 'images/001.png', 5)
    (tmp_path / 'val.txt').write_text('002')
    (tmp_path / 'train.txt').write_text('001.png')
    assert [sample.path for sample in read_data(tmp_path).splits['train'].samples] == [str(tmp_path / 'images/001.png')]
    (tmp_path / 'train.txt').write_text('001')
    assert re.search(r'001: \S*images/001.jpg, \S*images/001.png', refusal(read_data(tmp_path)) or '')


@pytest.mark.parametrize(
    'names', [('0001.png', '0001.tif'), ('0001_mask.png', '0001_mask.bmp'), ('0001_labelIds.png', '0001_gt.png')]
)
def test_two_label_maps_for_an_image_are_refused(names: tuple, tmp_path: Path) -> None:
    layouts.write_masks(tmp_path, BOTH)
    folder = tmp_path / 'masks/train'
    for name in names:
        shutil.copy(folder / '0000.png', folder / f'x{name}')
    (folder / '0001.png').unlink()
    for name in names:
        (folder / f'x{name}').rename(folder / name)
    message = refusal(read_data(tmp_path)) or ''
    assert re.search(r'several label maps; keep one of them:\n  \S*train/0001.jpg: ', message)
    assert all(str(folder / name) in message for name in names)


def test_a_label_map_of_the_very_name_is_taken(tmp_path: Path) -> None:
    layouts.write_masks(tmp_path, BOTH)
    folder = tmp_path / 'masks/train'
    shutil.copy(folder / '0000.png', folder / '0001_seg.png')
    data = read_data(tmp_path)
    assert refusal(data) is None and noted(data, 'without an image') == [str(folder / '0001_seg.png')]
    assert str(folder / '0001.png') in {sample.mask for sample in data.samples()}


@pytest.mark.parametrize(
    'old, new, reason',
    [
        ('<name>cat</name>', '<name> </name>', 'it has no name'),
        ('<name>cat</name>', '<name/>', 'it has no name'),
        ('<name>cat</name>', '', 'it has no name'),
        ('<bndbox>', '<polygon><x1>1</x1><y1>2</y1><x2>3</x2></polygon><bndbox>', 'its polygon has 3 values'),
        ('<bndbox>', '<polygon><x1>1</x1></polygon><bndbox>', 'its polygon has 1 values'),
        ('<bndbox>', '<polygon><x1>a</x1><y1>2</y1></polygon><bndbox>', "'a'"),
        ('<bndbox>', '<polygon><x1/><y1>2</y1></polygon><bndbox>', 'polygon'),
        ('<bndbox>', '<polygon><pt><x>1</x><y>2</y></pt></polygon><bndbox>', 'its polygon has 3 values'),
        ('<xmin>5', '<xmin>nan', 'nan'),
        ('<xmin>5', '<xmin>', 'xmin'),
    ],
)
def test_objects_of_voc_files_that_cannot_be_read_are_named(old: str, new: str, reason: str, tmp_path: Path) -> None:
    layouts.write_voc(tmp_path, BOTH)
    path = tmp_path / 'Annotations/0000.xml'
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))
    pattern = rf'Objects that cannot be read:\n  \S*0000.xml, object 1: .*{reason}'
    assert re.search(pattern, refusal(read_data(tmp_path)) or '')


@pytest.mark.parametrize('names', [['train'], ['test'], ['val'], ['test', 'train', 'val'], ['Training']])
def test_classes_may_be_named_like_splits(names: list, tmp_path: Path) -> None:
    layouts.write_folders(tmp_path, {'': 5})
    for name in names:
        for index in range(5):
            paint(tmp_path / name / f'{index}.png', index)
    data = read_data(tmp_path)
    assert data.kind == 'classification' and data.classes == sorted([*CLASSES, *names]) and refusal(data) is None
    assert noted(data, 'named like splits') == [str(tmp_path / name) for name in names]


@pytest.mark.parametrize('strays', [['docs'], ['a', 'b', 'c', 'd']])
def test_splits_beside_other_folders_are_splits(strays: list, tmp_path: Path) -> None:
    layouts.write_folders(tmp_path, {'train': 3, 'val': 2})
    for name in strays:
        paint(tmp_path / name / 'a.png', 0)
    paint(tmp_path / 'test/a.png', 0)
    data = read_data(tmp_path)
    assert data.classes == list(CLASSES) and counts(data) == {'train': 9, 'val': 6} and refusal(data) is None
    assert noted(data, 'without a folder of any class') == [str(tmp_path / 'test')]
    shutil.rmtree(tmp_path / 'train')  # val is no class of images, whatever is beside it
    with pytest.raises(UsageError, match='has a split val, and none to train on'):
        read_data(tmp_path)


@pytest.mark.parametrize('names', ['train', 'train val', 'train val unlabeled', 'train train_masks'])
def test_splits_without_annotations_are_no_classes(names: str, tmp_path: Path) -> None:
    for name in names.split():
        for index in range(4):
            paint(tmp_path / name / f'{index}.jpg', index)
    with pytest.raises(UsageError, match='not a dataset of a known layout'):
        read_data(tmp_path)


FOREIGN = {
    'params.yaml': 'train: {epochs: 10}\n',
    'dvc.yaml': 'train: stages/train\n',
    'mkdocs.yml': 'theme: !!python/name:material.theme\n',
    'secrets.yml': 'key: !vault abc\n',
    'k8s.yaml': 'a: 1\n---\nb: 2\n',
    'template.yaml': 'a: {{ b }}: c\n',
    'tags.yaml': 'names: [release, nightly]\n',
}


@pytest.mark.parametrize('name', FOREIGN)
@pytest.mark.parametrize(
    'write, layout',
    [
        (lambda root: layouts.write_folders(root, {'train': 3, 'val': 2}), 'class folders'),
        (lambda root: layouts.write_masks(root, BOTH), 'images and label maps'),
        (lambda root: layouts.write_voc(root, BOTH), 'Pascal VOC'),
        (lambda root: layouts.write_yolo(root, BOTH), 'YOLO'),
    ],
)
def test_files_of_other_tools_describe_no_dataset(write: Callable, layout: str, name: str, tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / name).write_text(FOREIGN[name])
    data = read_data(tmp_path)
    assert data.layout == layout and refusal(data) is None


@pytest.mark.parametrize('name', ['data.yaml', 'Dataset.yml', 'birds.yaml'])
@pytest.mark.parametrize(
    'text, reason',
    [('train: images/train\nval: images/val\n', "has no 'names'"), ('names: !cats [a]\n', 'cannot be read')],
)
def test_files_that_mean_a_dataset_in_yolos_format_are_refused(
    text: str, reason: str, name: str, tmp_path: Path
) -> None:
    layouts.write_yolo(tmp_path, BOTH)
    (tmp_path / 'data.yaml').unlink()
    (tmp_path / name).write_text(text)
    for path in (tmp_path, tmp_path / name):
        with pytest.raises(UsageError, match=f'{name} .*{reason}'):
            read_data(path)
    shutil.rmtree(tmp_path / 'labels')  # now only its name says so
    for path in (tmp_path, tmp_path / name):
        with pytest.raises(UsageError, match='not a dataset' if (path, name) == (tmp_path, 'birds.yaml') else reason):
            read_data(path)


def roboflow(root: Path, first: int = 0) -> Path:
    """Roboflow's export, whose paths are a level off."""
    for split, numbers in dict(train=range(first, first + 4), valid=range(first + 4, first + 6)).items():
        for index in numbers:
            paint(root / split / f'images/{index:04d}.jpg', index)
            label = root / split / f'labels/{index:04d}.txt'
            label.parent.mkdir(exist_ok=True)
            label.write_text('\n'.join(map(layouts.yolo_line, boxes(index))))
    text = f'train: ../train/images\nval: ../valid/images\nnames: {list(CLASSES)}\n'
    (root / 'data.yaml').write_text(text)
    return root


@pytest.mark.parametrize('splits', [['train'], ['valid'], ['train', 'valid']])
def test_roboflows_paths_are_refused_where_they_mean_two_folders(splits: list, tmp_path: Path) -> None:
    root = roboflow(tmp_path / 'birds')
    assert refusal(read_data(root)) is None
    roboflow(tmp_path / 'other', 6)
    for split in splits:
        (tmp_path / 'other' / split).rename(tmp_path / split)
    message = refusal(read_data(root)) or ''
    for split in splits:
        line = f'../{split}/images is {root}/{split}/images or {tmp_path}/{split}/images'
        assert line in message and 'remove the ../' in message
    (root / 'data.yaml').write_text((root / 'data.yaml').read_text().replace('../', ''))
    data = read_data(root)
    assert refusal(data) is None and all(sample.path.startswith(str(root)) for sample in data.samples())


def test_roboflows_paths_may_be_right(tmp_path: Path) -> None:
    roboflow(tmp_path)
    (tmp_path / 'settings').mkdir()
    (tmp_path / 'data.yaml').rename(tmp_path / 'settings/data.yaml')
    assert counts(read_data(tmp_path / 'settings')) == BOTH
    (tmp_path / 'settings/train').symlink_to(tmp_path / 'train')  # the same folder
    data = read_data(tmp_path / 'settings')
    assert refusal(data) is None and counts(data) == BOTH


def one_coco_file(root: Path) -> Path:
    """Images in folders of their own, and one file."""
    names = [f'site{index % 2}/{index:04d}.jpg' for index in range(6)]
    for index, name in enumerate(names):
        paint(root / 'images' / name, index)
    layouts.write_json(root / 'labels.json', layouts.coco(names))
    return root


@pytest.mark.parametrize(
    'write, folder',
    [
        (lambda root: layouts.write_voc(root, BOTH), 'JPEGImages'),
        (lambda root: layouts.write_coco(root, BOTH), 'train'),
        (lambda root: layouts.write_roboflow(root, BOTH), 'val'),
        (one_coco_file, 'images/site1'),
    ],
    ids=['VOC', 'COCO', 'Roboflow', 'one file'],
)
def test_images_that_nothing_lists_are_noted(write: Callable, folder: str, tmp_path: Path) -> None:
    data = read_data(write(tmp_path))
    assert not noted(data, 'does not list')
    before = counts(data)
    paint(tmp_path / folder / 'new.jpg', 0)
    if folder == 'JPEGImages':
        (tmp_path / 'Annotations/new.xml').write_text(layouts.voc_xml(0, 'new.jpg'))
    data = read_data(tmp_path)
    assert noted(data, 'does not list') == [str(tmp_path / folder / 'new.jpg')]
    assert refusal(data) is None and counts(data) == before


def test_voc_files_beside_those_of_splits_are_noted(tmp_path: Path) -> None:
    for split, numbers in dict(train=range(4), val=range(4, 6), more=[6]).items():
        for index in numbers:
            path = paint(tmp_path / split / f'{index:04d}.jpg', index)
            path.with_suffix('.xml').write_text(layouts.voc_xml(index, path.name))
    data = read_data(tmp_path)
    assert counts(data) == BOTH
    assert noted(data, 'outside of the folders of splits') == [str(tmp_path / 'more/0006.jpg')]


@pytest.mark.parametrize('name', ['0001.png', 'thumbnails/0001.jpg'])
def test_an_xml_file_is_of_one_image(name: str, tmp_path: Path) -> None:
    layouts.write_voc(tmp_path, BOTH)
    paint(tmp_path / 'JPEGImages' / name, 3)
    message = refusal(read_data(tmp_path)) or ''
    assert 'Several images for one XML file' in message and name in message and '0001.xml' in message
