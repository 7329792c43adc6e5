"""Trees that pass for class folders, names that lists can hold, and what files of classes say."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from mmevm.data.class_files import alike, stated_classes
from mmevm.data.reading import read_data
from mmevm.data.summary import refusal
from mmevm.errors import UsageError

from . import layouts
from .layouts import paint
from .test_reader_faults import counts, noted

pytestmark = pytest.mark.openmmlab

BOTH = {'train': 4, 'val': 2}
NAMES = ['background', 'crack', 'owl']


def plant(root: Path, text: str) -> Path:
    """Make a tree of images, and of empty files of other suffixes."""
    for index, name in enumerate(text.split()):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix in ('.png', '.jpg'):
            paint(path, index)
        else:
            path.touch()
    return root


def crossed(outer: str, inner: str, files: str = '0.png') -> str:
    """Paths of files in each inner folder of each outer one."""
    return ' '.join(f'{one}/{two}/{file}' for one in outer.split() for two in inner.split() for file in files.split())


TREES = {
    'Kaggle Intel': (crossed('seg_train/seg_train seg_test/seg_test', 'b f') + ' seg_pred/0.jpg', 'seg_test'),
    'names with splits': (crossed('flowers_train flowers_val', 'cat dog'), 'flowers_train'),
    'names with splits, flat': ('HR_train/0.png HR_valid/0.png', 'HR_valid'),
    'folds': (crossed('fold_0 fold_1', 'cat dog'), 'fold_1'),
    'a fold without a class': (crossed('a b', 'cat dog') + ' a/owl/0.png', 'a'),
    'folds with splits': (crossed('fold0/train fold0/val fold1/train fold1/val', 'cat dog'), 'fold0'),
    'copies': (crossed('original resized', 'cat dog'), 'original'),
    'wrapped copies': (crossed('original/images resized/images', 'cat dog'), 'original'),
    'copies in a split': (crossed('train/original train/resized', 'cat dog'), 'original'),
    'MVTec': (crossed('bottle cable', 'train/good test/broken ground_truth/broken'), 'bottle'),
    'a folder for each image': (crossed('train/00a train/00b', 'images masks'), 'train/00a'),
    'VisDrone': (crossed('V-DET-train V-DET-val', 'images') + ' V-DET-train/annotations/0.txt', 'V-DET-train'),
    'Supervisely': (crossed('ds1 ds2', 'img') + ' ds1/ann/0.json ds2/ann/0.json', 'ds1'),
    'MOT': (crossed('train/M-01 train/M-02', 'img1') + ' train/M-01/gt/gt.txt train/M-02/gt/gt.txt', 'M-01'),
    'files of objects': (crossed('siteA siteB', 'imgs') + ' siteA/json/0.json siteB/json/0.json', 'siteA'),
    'label maps': (crossed('a b', 'images masks'), 'a'),
    'label maps below': (crossed('a b', 'x/images x/masks'), 'a'),
    'a dataset beside images': ('figures/0.png ' + crossed('mydata', 'images/train labels/train'), 'mydata'),
}


@pytest.mark.parametrize('text, name', TREES.values(), ids=TREES)
def test_other_trees_are_no_class_folders(text: str, name: str, tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match=rf'no folder of class folders: .*{name}\b.*call them train, val and test.*give'
    ):
        read_data(plant(tmp_path, text))


@pytest.mark.parametrize(
    'text, classes, merged',
    [
        (crossed('animals', 'cat dog') + ' ' + crossed('vehicles', 'car bus'), ['animals', 'vehicles'], 2),
        (crossed('n01 n02', 'images') + ' n01/n01_boxes.txt', ['n01', 'n02'], 0),
        (crossed('train_station mill', 'day'), ['mill', 'train_station'], 0),
        (crossed('train/test_tube train/cup', 'a') + ' train/test_tube/b/0.png', ['cup', 'test_tube'], 1),
        (crossed('cat dog', 'new', '0.png') + ' cat/old/0.png cat/1.png dog/1.png', ['cat', 'dog'], 0),
        (crossed('photos masks', 'a'), ['masks', 'photos'], 0),
    ],
)
def test_folders_below_classes_are_merged(text: str, classes: list, merged: int, tmp_path: Path) -> None:
    data = read_data(plant(tmp_path, text))
    assert data.kind == 'classification' and data.classes == classes
    assert len(noted(data, 'are merged into one class')) == merged


@pytest.mark.parametrize('inner', ['training_set', 'Training_Set', 'training_set/training_set'])
def test_splits_may_be_wrapped_in_their_own_name(inner: str, tmp_path: Path) -> None:
    plant(tmp_path, crossed(f'training_set/{inner} test_set/test_set', 'cat dog', '0.png 1.png'))
    data = read_data(tmp_path)
    assert data.classes == ['cat', 'dog'] and counts(data)['train'] == 4 and refusal(data) is None


@pytest.mark.parametrize('mark', ['\u202f', '\u3000', '\U0001f468\u200d\U0001f33e', '\xa0', '\xad'])
def test_names_that_lists_can_hold(mark: str, tmp_path: Path) -> None:
    layouts.write_folders(tmp_path, {'': 5})
    (tmp_path / 'owl').rename(tmp_path / f'o{mark}wl')
    (tmp_path / 'cat/000.png').rename(tmp_path / f'cat/10.00{mark}AM.png')
    assert refusal(read_data(tmp_path)) is None


@pytest.mark.parametrize('mark', ['\n', '\u2028', '\u2029', '\x85', '\udcff'])
def test_names_that_lists_cannot_hold(mark: str, tmp_path: Path) -> None:
    layouts.write_folders(tmp_path, {'': 5})
    (tmp_path / 'owl').rename(tmp_path / f'o{mark}wl')
    (tmp_path / 'cat/000.png').rename(tmp_path / f'cat/10.00{mark}AM.png')
    message = refusal(read_data(tmp_path)) or ''
    assert 'cannot be written as UTF-8 text' in message and 'other control characters' in message


def entry(name: str) -> dict:
    """A class of a file that has more than names."""
    return {'name': name, 'color': [0, 0, 0]}


FILES = {
    'behind a colon': ('classes.txt', 'owl: 2\nbackground: 0\ncrack: 1'),
    'behind a comma': ('classes.txt', 'background,0\ncrack,1\nowl,2'),
    'behind a space': ('labels.txt', 'background 0\nowl 2\ncrack 1'),
    'below a comment': ('classes.txt', '# classes\n0: background\n1: crack\n2: owl'),
    'names below a comment': ('classes.txt', '# classes\nbackground\ncrack\nowl'),
    'of labelme': ('labels.txt', '__ignore__\nbackground\ncrack\nowl'),
    'of Roboflow': ('_classes.csv', 'Pixel Value, Class\n0, background\n1, crack\n2, owl'),
    'names in objects': ('classes.json', json.dumps({index: entry(name) for index, name in enumerate(NAMES)})),
    'in capitals': ('Classes.TXT', '\n'.join(NAMES)),
    'beside the label maps': ('masks/classes.txt', '\n'.join(NAMES)),
    'in a split': ('masks/train/labels.txt', '\n'.join(NAMES)),
}


@pytest.mark.parametrize('name, text', FILES.values(), ids=FILES)
def test_files_of_classes(name: str, text: str, tmp_path: Path) -> None:
    layouts.write_masks(tmp_path, BOTH)
    (tmp_path / name).write_text(text)
    data = read_data(tmp_path)
    assert data.classes == NAMES and data.values == {0: 0, 1: 1, 2: 2} and refusal(data) is None


@pytest.mark.parametrize(
    'text', ['lane 1\nlane 2', 'Boeing 737\nAirbus 320', 'cat\ndog 2', 'sky 0 0 1\nroad 0 0 2', '# cat\ndog', '#1\n#2']
)
def test_names_may_have_numbers(text: str, tmp_path: Path) -> None:
    file = tmp_path / 'classes.txt'
    file.write_text(text)
    assert stated_classes(file) == (text.split('\n'), None, False)


@pytest.mark.parametrize('names', ['{"0": {"color": 1}}', '{"0": null}', '{"0": ["a"]}', '["a", null]', '{"a": true}'])
def test_names_in_json_are_text(names: str, tmp_path: Path) -> None:
    file = tmp_path / 'classes.json'
    file.write_text(names)
    with pytest.raises(UsageError, match=r'classes.json cannot be read: expected .*names'):
        stated_classes(file)


@pytest.mark.parametrize('name, text', [('a.txt', '0: a\n0: b'), ('a.json', '{"a": 1, "b": 1}')])
def test_a_value_has_one_name(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(UsageError, match='expected one name for each value, and [01] has several'):
        stated_classes(tmp_path / name)


def test_files_that_name_different_classes(tmp_path: Path) -> None:
    layouts.write_masks(tmp_path, BOTH)
    first, second = (tmp_path / f'masks/{split}/classes.txt' for split in BOTH)
    first.write_text('a\nb\nc')
    second.write_text('a\nc\nb')
    message = refusal(read_data(tmp_path)) or ''
    assert re.search(rf'name different classes; .*\n  {first}\n  {second}', message)
    (tmp_path / 'classes.txt').write_text('a\nb\nc')
    data = read_data(tmp_path)
    assert noted(data, f'Classes are those of {tmp_path}/classes.txt; ') == [str(second)] and refusal(data) is None


def rename_in_coco(root: Path, name: str) -> None:
    """Give the second class of COCO files a name."""
    for path in layouts.write_coco(root, BOTH).glob('annotations/*'):
        path.write_text(path.read_text().replace('"dog"', json.dumps(name)).replace('"cat"', '"caf\u00e9"'))


def rename_in_yolo(root: Path, name: str) -> None:
    """Give the second class of a YOLO dataset a name."""
    layouts.write_yolo(root, BOTH, yaml=f'train: images/train\nval: images/val\nnames: [caf\u00e9, {name}, owl]')


@pytest.mark.parametrize('write', [rename_in_coco, rename_in_yolo])
@pytest.mark.parametrize('name', ['Caf\u00e9', 'cafe\u0301', 'CAFE\u0301'])
def test_names_that_are_alike_are_noted(write: Callable, name: str, tmp_path: Path) -> None:
    write(tmp_path, name)
    data = read_data(tmp_path)
    assert noted(data, 'differ in case alone') == ["'caf\u00e9'", repr(name)] and refusal(data) is None


def test_alike_names_of_folders_are_noted(tmp_path: Path) -> None:
    plant(tmp_path, 'caf\u00e9/0.png cafe\u0301/1.png owl/2.png')
    assert len(noted(read_data(tmp_path), 'differ in case alone')) == 2
    assert alike(['a', 'b', 'a b']) == []


@pytest.mark.parametrize('others', ['val: images/val', 'val: images/val\ntest: images/val'])
def test_mistyped_folders_of_the_training_split_are_named(others: str, tmp_path: Path) -> None:
    layouts.write_yolo(tmp_path, BOTH, yaml=f'train: images/tran\n{others}\nnames: [cat, dog, owl]')
    message = refusal(read_data(tmp_path)) or ''
    assert f'Folders that do not exist:\n  {tmp_path}/data.yaml: train: images/tran' in message


@pytest.mark.parametrize(
    'name, advice',
    [
        ('dataset.zip', r'it has dataset.zip. \S+dataset.zip is an archive; unpack it'),
        ('0/dataset.tar.gz', r'\S+dataset.tar.gz is an archive; unpack it'),
        ('labels.csv', r'it has labels.csv. Tables such as \S+labels.csv are not read; for classification, put'),
        ('train/_classes.csv', r'Tables such as \S+train/_classes.csv are not read'),
    ],
)
def test_archives_and_tables_are_not_read(name: str, advice: str, tmp_path: Path) -> None:
    plant(tmp_path, f'{name} {"train/0.png" if "train" in name else ""}')
    for path in (tmp_path, tmp_path / name):
        with pytest.raises(UsageError, match=advice if path.is_dir() else advice.rpartition('. ')[2]):
            read_data(path)
