"""What class names, label files and lists mean, in YOLO's format and Pascal VOC's, wherever they are."""

import re
import shutil
from pathlib import Path

import pytest

from mmevm.data.reading import read_data
from mmevm.data.records import UserData
from mmevm.data.summary import refusal
from mmevm.errors import UsageError

from . import layouts
from .layouts import CLASSES, boxes, paint
from .test_reader_faults import counts, noted

pytestmark = pytest.mark.openmmlab

BOTH = {'train': 4, 'val': 2}
NAMES = '\nnames: [cat, dog, owl]'


def objects(data: UserData) -> int:
    """How many objects the images have."""
    return sum(len(sample.things) for sample in data.samples())


def label(path: Path, index: int) -> None:
    """Write the label file of an image."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text('\n'.join(map(layouts.yolo_line, boxes(index))))


def yolo_splits(root: Path) -> Path:
    """Images and their label files in a folder for each split, and nothing that names the classes."""
    for split, numbers in dict(train=range(4), valid=range(4, 6)).items():
        for index in numbers:
            label(paint(root / split / f'{index:04d}.jpg', index).with_suffix('.txt'), index)
    return root


def annotate(path: Path, index: int) -> Path:
    """Write the XML file of an image."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(layouts.voc_xml(index, f'{path.stem}.jpg'))
    return path


@pytest.mark.parametrize('folder', ['imgs', 'images'])
def test_lists_may_be_relative_to_the_working_directory(
    folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for index in range(6):
        image = paint(tmp_path / f'work/{folder}/{index:04d}.jpg', index)
        label(image.with_suffix('.txt'), index)
    root = tmp_path / 'settings/birds'
    root.mkdir(parents=True)
    for split, numbers in dict(train=range(4), val=range(4, 6)).items():
        (root / f'{split}.txt').write_text('\n'.join(f'{folder}/{index:04d}.jpg' for index in numbers))
    (root / 'data.yaml').write_text(f'train: train.txt\nval: val.txt{NAMES}')
    monkeypatch.chdir(tmp_path / 'work')
    data = read_data(root)
    assert refusal(data) is None and objects(data) == 12
    assert {Path(sample.path).parent for sample in data.samples()} == {tmp_path / 'work' / folder}


@pytest.mark.parametrize('places', [('train', 'valid'), ('', 'valid'), ('train', 'valid/labels')])
def test_splits_have_the_same_classes(places: tuple, tmp_path: Path) -> None:
    yolo_splits(tmp_path)
    first, second = (tmp_path / place / 'classes.txt' for place in places)
    second.parent.mkdir(exist_ok=True)
    first.write_text('cat\ndog\nowl\n')
    second.write_text('\n'.join(CLASSES))
    data = read_data(tmp_path)
    assert data.classes == list(CLASSES) and refusal(data) is None
    second.write_text('dog\ncat\nowl\n')
    with pytest.raises(UsageError, match=re.escape(f'{first} and {second} name different classes, or in another')):
        read_data(tmp_path)


def test_classes_may_be_named_in_any_split(tmp_path: Path) -> None:
    yolo_splits(tmp_path)
    (tmp_path / 'valid/classes.txt').write_text('\n'.join(CLASSES))
    assert read_data(tmp_path).classes == list(CLASSES)


def test_a_label_file_is_of_one_image(tmp_path: Path) -> None:
    layouts.write_yolo(tmp_path, BOTH)
    paint(tmp_path / 'images/train/0001.png', 3)
    message = refusal(read_data(tmp_path)) or ''
    assert re.search(
        r'Several images for one label file; .*\n  \S*labels/train/0001.txt: \S*1.jpg and \S*1.png', message
    )
    (tmp_path / 'labels/train/0001.txt').unlink()
    assert refusal(read_data(tmp_path)) is None


@pytest.mark.parametrize('place', ['labels/train', 'labels', 'labels/more/a', 'train'])
def test_label_files_without_an_image_are_noted(place: str, tmp_path: Path) -> None:
    if place == 'train':
        yolo_splits(tmp_path)
        (tmp_path / 'train.txt').write_text('train/0000.jpg')
    else:
        layouts.write_yolo(tmp_path, BOTH)
    (tmp_path / place).mkdir(parents=True, exist_ok=True)
    (tmp_path / place / 'classes.txt').write_text('\n'.join(CLASSES))
    (tmp_path / place / 'empty.txt').touch()
    assert not noted(read_data(tmp_path), 'without an image')
    label(tmp_path / place / 'orphan.txt', 0)
    data = read_data(tmp_path)
    assert noted(data, 'without an image') == [str(tmp_path / place / 'orphan.txt')] and refusal(data) is None


def test_label_files_of_images_that_are_not_listed_have_an_image(tmp_path: Path) -> None:
    layouts.write_yolo(tmp_path, BOTH, yaml=f'train: train.txt\nval: images/val{NAMES}')
    (tmp_path / 'train.txt').write_text('images/train/0000.jpg\nimages/train/0001.jpg')
    data = read_data(tmp_path)
    assert counts(data) == {'train': 2, 'val': 2} and not noted(data, 'without an image')


@pytest.mark.parametrize(
    'text',
    [
        'train_batch: 16\ntrain: images/train\nval: images/val',
        'val_transform: flip\ntrain_transform: flip\ntrain: images/train\nval: images/val',
        'valid_name: best\nvalid: images/val\ntraining: images/train',
        'train: images\\train\nval: .\\images\\val',
        'path: ..\\birds\\images\ntrain: train\nval: val',
    ],
)
def test_keys_and_folders_of_splits(text: str, tmp_path: Path) -> None:
    root = layouts.write_yolo(tmp_path / 'birds', BOTH, yaml=text + NAMES)
    data = read_data(root)
    assert refusal(data) is None and counts(data) == BOTH and objects(data) == 12


@pytest.mark.parametrize('names', ['[yes, cat, off]', '{0: yes, 1: cat, 2: off}', '[true, ~, owl]'])
def test_names_that_yaml_changes_are_refused(names: str, tmp_path: Path) -> None:
    text = 'train: images/train\nval: images/val\nnames: '
    layouts.write_yolo(tmp_path, BOTH, yaml=text + names)
    message = refusal(read_data(tmp_path)) or ''
    assert re.search(r"quote them, like 'yes':\n  \S*data.yaml: True\n  \S*data.yaml: (False|None)", message)
    (tmp_path / 'data.yaml').write_text(text + "['yes', cat, 'off']")
    data = read_data(tmp_path)
    assert data.classes == ['yes', 'cat', 'off'] and refusal(data) is None


def test_labels_are_found_behind_many_images_without(tmp_path: Path) -> None:
    first = paint(tmp_path / 'a000.jpg', 0)
    for index in range(1, 210):
        shutil.copy(first, tmp_path / f'a{index:03d}.jpg')
    for index in range(4):
        label(paint(tmp_path / f'b{index}.jpg', index).with_suffix('.txt'), index)
    (tmp_path / 'classes.txt').write_text('\n'.join(CLASSES))
    data = read_data(tmp_path)
    assert data.layout == 'YOLO' and objects(data) == 8


@pytest.mark.parametrize('points, shape', [('.2 .2 .3 .3', '[2, 2]'), ('.2 .2 2 .3 .3 1 0 0 0', '[3, 3]')])
def test_polygons_that_may_be_poses_are_noted(points: str, shape: str, tmp_path: Path) -> None:
    layouts.write_yolo(tmp_path, BOTH, polygons=True)
    assert not noted(read_data(tmp_path), 'key points')
    for path in tmp_path.glob('labels/*/*.txt'):
        path.write_text(f'0 .25 .25 .2 .2 {points}\n')
    assert noted(read_data(tmp_path), 'key points') == [f'{tmp_path}/labels/train/0000.txt, line 1']
    (tmp_path / 'data.yaml').write_text(f'{(tmp_path / "data.yaml").read_text()}\nkpt_shape: {shape}')
    data = read_data(tmp_path)
    assert not noted(data, 'key points') and not data.has_shapes


MOVES = {
    'a split with a folder for them': {4: 'val/annotations/0004.xml', 5: 'val/annotations/0005.xml'},
    'capitals': {1: 'train/0001.XML'},
    'a folder in a split': {2: 'train/more/0002.xml', 3: 'train/more/0003.xml'},
}


@pytest.mark.parametrize('moves', MOVES.values(), ids=MOVES)
def test_xml_files_beside_images_are_read_whatever_the_level(moves: dict, tmp_path: Path) -> None:
    for index in range(6):
        xml = annotate(tmp_path / moves.get(index, f'{"train" if index < 4 else "val"}/{index:04d}.xml'), index)
        paint((xml.parent.parent if xml.parent.name == 'annotations' else xml.parent) / f'{index:04d}.jpg', index)
    data = read_data(tmp_path)
    assert counts(data) == BOTH and objects(data) == 12 and refusal(data) is None
    assert not noted(data, 'without an XML file')


@pytest.mark.parametrize('place', ['Annotations/more/0003.xml', '0003.xml', 'Annotations/a/b/0003.XML'])
@pytest.mark.parametrize('splits', [BOTH, {'': 6}], ids=['lists', 'no lists'])
def test_xml_files_apart_are_read_whatever_the_level(splits: dict, place: str, tmp_path: Path) -> None:
    layouts.write_voc(tmp_path, splits)
    (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / 'Annotations/0003.xml').rename(tmp_path / place)
    data = read_data(tmp_path)
    assert objects(data) == 12 and refusal(data) is None and not noted(data, 'without an XML file')


def test_root_xml_files_and_those_below_are_read(tmp_path: Path) -> None:
    for index in range(6):
        image = paint(tmp_path / ('sub' if index % 2 else '') / f'{index // 2}.jpg', index)
        annotate(image.with_suffix('.xml'), index)
    data = read_data(tmp_path)
    assert objects(data) == 12 and refusal(data) is None and not noted(data, 'without an XML file')


def test_xml_files_of_one_name_are_of_the_image_in_the_folder_of_that_name(tmp_path: Path) -> None:
    for split, numbers in dict(train=range(4), val=range(2)).items():
        for index in numbers:
            paint(tmp_path / f'images/{split}/{index}.jpg', index)
            annotate(tmp_path / f'annotations/{split}/{index}.xml', index)
    data = read_data(tmp_path)
    assert counts(data) == BOTH and objects(data) == 12 and refusal(data) is None


@pytest.mark.parametrize('place', ['JPEGImages/0001.xml', 'Annotations/0001.XML'])
def test_several_xml_files_for_an_image_are_refused(place: str, tmp_path: Path) -> None:
    layouts.write_voc(tmp_path, {'': 6})
    annotate(tmp_path / place, 2)
    message = refusal(read_data(tmp_path)) or ''
    assert re.search(r'Several XML files for one image; keep one of them:\n.*0001\.', message)


def test_a_copy_of_an_xml_file_beside_its_image_does_no_harm(tmp_path: Path) -> None:
    layouts.write_voc(tmp_path, {'': 6})
    annotate(tmp_path / 'JPEGImages/0001.xml', 1)
    data = read_data(tmp_path)
    assert objects(data) == 12 and refusal(data) is None


def test_xml_files_of_other_tools_annotate_no_image(tmp_path: Path) -> None:
    layouts.write_voc(tmp_path, {'': 6})
    for path in ('pom.xml', 'tools/x/build.xml'):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text('<project/>')
    data = read_data(tmp_path)
    assert objects(data) == 12 and refusal(data) is None
    assert noted(data, 'no annotations') == [
        f'{tmp_path}/{path}: <project>' for path in ('pom.xml', 'tools/x/build.xml')
    ]
    layouts.write_folders(tmp_path / 'classes', {'train': 3, 'val': 2})
    (tmp_path / 'classes/pom.xml').write_text('<project/>')
    assert read_data(tmp_path / 'classes').kind == 'classification'


@pytest.mark.parametrize('content', ['<image id="0" name="0.jpg"/>', '<meta/><track id="0" label="cat"/>'])
@pytest.mark.parametrize('is_beside', [False, True])
def test_cvats_own_format_is_refused(content: str, is_beside: bool, tmp_path: Path) -> None:
    layouts.write_voc(tmp_path, {'': 4})
    if not is_beside:
        shutil.rmtree(tmp_path / 'Annotations')
    (tmp_path / 'annotations.xml').write_text(f'<annotations><version>1.1</version>{content}</annotations>')
    with pytest.raises(UsageError, match=r"annotations.xml is in CVAT's own format.*'COCO' or 'Pascal VOC'"):
        read_data(tmp_path)


def test_lists_of_one_split_are_joined(tmp_path: Path) -> None:
    layouts.write_voc(tmp_path, {'train': 4, 'val': 2, 'valid': 2})
    with (tmp_path / 'ImageSets/Main/valid.txt').open('a') as file:
        file.write('\n0004')
    data = read_data(tmp_path)
    assert counts(data) == {'train': 4, 'val': 4} and refusal(data) is None
