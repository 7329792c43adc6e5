"""What would train on nothing, or on something else than its owner means, is found or put right, and said."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from mmevm.data.adaptation import adapt
from mmevm.data.reading import read_data
from mmevm.data.summary import describe, refusal
from mmevm.errors import UsageError

from . import layouts
from .layouts import paint

pytestmark = pytest.mark.openmmlab

BOTH = {'train': 4, 'val': 2}


def edit_objects(root: Path, change: Callable[[dict], Any]) -> Path:
    """Change every annotation of a new dataset in COCO's format."""
    layouts.write_coco(root, BOTH)
    for path in (root / 'annotations').iterdir():
        content = json.loads(path.read_text())
        for item in content['annotations']:
            change(item)
        path.write_text(json.dumps(content))
    return root


def edit_images(root: Path, **changes: Any) -> Path:
    """Change every image's entry of a new dataset in COCO's format."""
    layouts.write_coco(root, BOTH)
    for path in (root / 'annotations').iterdir():
        content = json.loads(path.read_text())
        for item in content['images']:
            item.update(changes)
        path.write_text(json.dumps(content))
    return root


def trained_on(root: Path, folder: Path) -> int:
    """Objects that MMDetection's dataset has for training, as a config is adapted to the data."""
    from mmdet.datasets import CocoDataset
    from mmengine.config import Config

    data = read_data(root)
    assert refusal(data) is None
    cfg = Config(
        dict(
            default_scope='mmdet',
            model=dict(type='RetinaNet', bbox_head=dict(type='RetinaHead', num_classes=80)),
            train_dataloader=dict(batch_size=1, dataset=dict(type='CocoDataset', pipeline=[])),
        )
    )
    adapt(cfg, data, folder)
    settings = dict(cfg.train_dataloader.dataset)
    settings.pop('type')
    items = CocoDataset(**settings)
    return sum(
        not thing['ignore_flag'] for index in range(len(items)) for thing in items.get_data_info(index)['instances']
    )


@pytest.mark.parametrize(
    'change',
    [
        lambda item: item.update(area=0),
        lambda item: item.update(area=None),
        lambda item: item.update(id=item['id'] - 1),
        lambda item: item.update(id=f'a{item["id"]}'),
        lambda item: item.update(bbox=None),
        lambda item: item.update(iscrowd=None),
    ],
    ids=['area 0', 'no area', 'id 0', 'ids of letters', 'polygons alone', 'no iscrowd'],
)
def test_objects_that_the_libraries_would_drop_are_written_anew(change: Callable, tmp_path: Path) -> None:
    root = edit_objects(tmp_path / 'data', change)
    data = read_data(root)
    assert not any(split.annotations for split in data.splits.values())  # their own files do not serve
    assert trained_on(root, tmp_path / 'work') == 8
    content = json.loads(next((tmp_path / 'work').glob('train-*.json')).read_text())
    assert all(item['id'] >= 1 and item['area'] in (320, 480) for item in content['annotations'])


@pytest.mark.parametrize('size', [None, '64', float('nan')])
def test_images_of_unknown_size_are_measured(size: Any, tmp_path: Path) -> None:
    assert trained_on(edit_images(tmp_path / 'data', width=size), tmp_path / 'work') == 8


def test_names_with_spaces_around_them_are_the_same_names(tmp_path: Path) -> None:
    layouts.write_coco(tmp_path / 'data', BOTH)
    path = tmp_path / 'data/annotations/instances_val.json'
    path.write_text(path.read_text().replace('"cat"', '" cat\\n"'))
    data = read_data(tmp_path / 'data')
    assert refusal(data) is None and data.splits['train'].annotations and not data.splits['val'].annotations


@pytest.mark.parametrize(
    'change, pattern',
    [
        (
            lambda item: item.update(bbox=[value / 64 for value in item['bbox']], segmentation=None),
            'fractions of the image',
        ),
        (lambda item: item.update(iscrowd=1), r'train has no object of any class, but crowds'),
        (
            lambda item: item.update(bbox=[20, 20, 0.5, 8]),
            r'val has no object of any class, but crowds .*below a pixel',
        ),
        (lambda item: item.update(segmentation=[1, 2, 3, 4, 5, 6]), 'not lists of numbers'),
        (lambda item: item.update(segmentation=[1, 2, 3, 4, 5, 6], bbox=None), 'not four numbers'),
        (lambda item: item.update(segmentation=[['a'] * 6]), 'not lists of numbers'),
        (lambda item: item.update(segmentation={'size': [10, 10], 'counts': [50, 50]}), 'do not fit the image'),
        (lambda item: item.update(segmentation={'size': [48, 64], 'counts': []}), 'do not fit the image'),
        (lambda item: item.update(segmentation={'counts': 'abc'}), 'do not fit the image'),
        (lambda item: item.update(category_id=[1]), r"'category_id' in 'annotations' is \[1\]"),
        (lambda item: item.update(category_id=str(item['category_id'])), "do not define:\n.*: '1'"),
    ],
)
def test_objects_that_cannot_be_trained_on_are_refused(change: Callable, pattern: str, tmp_path: Path) -> None:
    assert re.search(pattern, refusal(read_data(edit_objects(tmp_path, change))) or '')


def test_boxes_below_a_pixel_are_noted_and_counted_apart(tmp_path: Path) -> None:
    layouts.write_yolo(tmp_path, BOTH)
    label = tmp_path / 'labels/train/0000.txt'
    label.write_text(label.read_text() + '\n0 .5 .5 .001 .001')
    data = read_data(tmp_path)
    assert refusal(data) is None and re.search(r'crowds, and below a pixel +1 +0', describe(data))
    assert any('narrower or lower than a pixel' in heading for heading in data.findings.notes)


def test_difficult_objects_alone_are_refused(tmp_path: Path) -> None:
    layouts.write_voc(tmp_path, BOTH)
    for path in (tmp_path / 'Annotations').iterdir():
        path.write_text(re.sub('</name>', '</name><difficult>1</difficult>', path.read_text()))
    assert 'Pascal VOC: difficult' in (refusal(read_data(tmp_path)) or '')


def test_a_dataset_without_any_object_is_refused(tmp_path: Path) -> None:
    layouts.write_voc(tmp_path, BOTH)
    for path in (tmp_path / 'Annotations').iterdir():
        path.write_text(re.sub('<object>.*</object>', '', path.read_text(), flags=re.DOTALL))
    assert 'The split train has no object of any class' in (refusal(read_data(tmp_path)) or '')


@pytest.mark.parametrize('other', ['depth', 'Masks', 'eval', 'boxes_drawn'])
def test_images_come_from_the_folder_of_images(other: str, tmp_path: Path) -> None:
    names = [f'{index:04d}.jpg' for index in range(5)]
    for index, name in enumerate(names):
        paint(tmp_path / 'images' / name, index)
        paint(tmp_path / other / name, 0)
    layouts.write_json(tmp_path / 'annotations.json', layouts.coco(names))
    data = read_data(tmp_path)
    assert {Path(sample.path).parent.name for sample in data.samples()} == {'images'}
    assert any(note.startswith('Images are taken from') for note in data.findings.notes)
    (tmp_path / 'images').rename(tmp_path / 'a')
    (tmp_path / other).rename(tmp_path / 'b')
    assert re.search(r'images of the same names; .*\n.*/a\n.*/b', refusal(read_data(tmp_path)) or '')


def test_folders_of_classes_are_complete(tmp_path: Path) -> None:
    layouts.write_folders(tmp_path / 'a', {'train': 3, 'val': 2})
    for split in ('train', 'val'):
        (tmp_path / f'a/{split}/owl').rename(tmp_path / f'a/{split}/_owl')
    assert read_data(tmp_path / 'a').classes == ['_owl', 'cat', 'dog']
    layouts.write_folders(tmp_path / 'b', {'train': 3, 'val': 2, 'valid': 2})
    assert re.search(
        r'Several folders for the split val; .*\n.*/val and .*/valid', refusal(read_data(tmp_path / 'b')) or ''
    )
    layouts.write_folders(tmp_path / 'c', {'train': 3, 'val': 2})
    paint(tmp_path / 'c/train/cat/@eaDir/0.jpg', 0)
    (tmp_path / 'c/train/cat/loop').symlink_to(tmp_path / 'c/train/cat')
    (tmp_path / 'c/train/cat/photo.HEIC').write_bytes(b'')
    data = read_data(tmp_path / 'c')
    assert len(data.splits['train'].samples) == 9 and refusal(data) is None
    assert any('formats' in heading and 'photo.HEIC' in items[0] for heading, items in data.findings.notes.items())
    for path in [*(tmp_path / 'c').glob('*/cat/*.png')]:
        path.unlink()
    assert re.search(r'without an image in any split:\n.*/cat', refusal(read_data(tmp_path / 'c')) or '')


def test_a_test_split_without_classes_is_left_out(tmp_path: Path) -> None:
    layouts.write_folders(tmp_path, {'train': 3, 'val': 2})
    paint(tmp_path / 'test/unlabeled/0.jpg', 0)
    data = read_data(tmp_path)
    assert refusal(data) is None and list(data.splits) == ['train', 'val']


def test_folders_of_other_tasks_are_no_classes(tmp_path: Path) -> None:
    paint(tmp_path / 'imgs/0.jpg', 0)
    paint(tmp_path / 'masks/0.jpg', 0)
    with pytest.raises(UsageError, match=r'not a dataset of a known layout.*masks are JPEG files'):
        read_data(tmp_path)


def test_yolo_labels_without_names_are_known(tmp_path: Path) -> None:
    layouts.write_yolo(tmp_path, BOTH)
    (tmp_path / 'data.yaml').unlink()
    with pytest.raises(UsageError, match=r'look like labels of YOLO; add a data\.yaml'):
        read_data(tmp_path)


BOM = '\ufeff'


def test_names_of_classes_are_text(tmp_path: Path) -> None:
    layouts.write_yolo(tmp_path, BOTH)
    (tmp_path / 'data.yaml').unlink()
    (tmp_path / 'classes.txt').write_text(BOM + 'cat\ndog\nowl\n', encoding='utf-8')
    paint(tmp_path / 'images/extra.jpg', 0)
    data = read_data(tmp_path)
    assert data.classes == ['cat', 'dog', 'owl']
    assert any('outside of the folders of splits' in heading for heading in data.findings.notes)
    (tmp_path / 'classes.txt').write_text('cat\ndog\ncat\n')
    assert 'same name:\n' in (refusal(read_data(tmp_path)) or '')
    (tmp_path / 'classes.txt').write_bytes('café\ndog\nowl\n'.encode('cp1252'))
    with pytest.raises(UsageError, match='classes.txt is not text in UTF-8'):
        read_data(tmp_path)
    (tmp_path / 'data.yaml').write_text('train: images/train\nval: images/val\n')
    with pytest.raises(UsageError, match="data.yaml describes a dataset and has no 'names'"):
        read_data(tmp_path)


def test_yolo_from_other_machines(tmp_path: Path) -> None:
    yaml = "train: train.txt\nval: images/val\ntest: ../test/images\nnc: '3'\nnames: [cat, dog, owl]"
    layouts.write_yolo(tmp_path, BOTH, yaml=yaml)
    (tmp_path / 'train.txt').write_text('\n'.join(f'.\\images\\train\\{index:04d}.jpg' for index in range(4)))
    label = tmp_path / 'labels/train/0000.txt'
    label.write_text(BOM + label.read_text(), encoding='utf-8')
    data = read_data(tmp_path)
    assert refusal(data) is None and sum(len(s.things) for s in data.splits['train'].samples) == 8
    (tmp_path / 'data.yaml').write_text('train: C:\\data\\train\nval: C:\\data\\val\nnames: [cat, dog, owl]')
    assert 'train: C:\\data\\train' in (refusal(read_data(tmp_path)) or '')


def test_voc_lists_with_spaces_suffixes_and_flags(tmp_path: Path) -> None:
    layouts.write_voc(tmp_path, BOTH)
    for place, suffix in (('Annotations', 'xml'), ('JPEGImages', 'jpg')):
        (tmp_path / f'{place}/0000.{suffix}').rename(tmp_path / f'{place}/my pic 0.{suffix}')
    (tmp_path / 'ImageSets/Main/train.txt').write_text(
        BOM + 'my pic 0\n0001.JPG\n0002  1\n0003.jpeg\n', encoding='utf-8'
    )
    data = read_data(tmp_path)
    assert refusal(data) is None and len(data.splits['train'].samples) == 4


@pytest.mark.parametrize(
    'text', ['<?xml version="1.0" encoding="GBK"?><annotation/>', '<?xml version="1.0" encoding="x"?><a/>']
)
def test_xml_in_other_encodings_is_named(text: str, tmp_path: Path) -> None:
    layouts.write_voc(tmp_path, BOTH)
    (tmp_path / 'Annotations/0000.xml').write_text(text)
    other = tmp_path / 'Annotations/0001.xml'
    other.write_text(re.sub(r'<width>\d+', '<width>64px', other.read_text()))
    message = refusal(read_data(tmp_path)) or ''
    assert '0000.xml: not valid XML' in message and re.search(r'0001.xml: the size of the image, .*64px', message)


def test_names_that_lists_cannot_hold_are_named(tmp_path: Path) -> None:
    layouts.write_masks(tmp_path / 'a', BOTH)
    for kind, suffix in (('images', 'jpg'), ('masks', 'png')):
        (tmp_path / f'a/{kind}/train/0000.{suffix}').rename(tmp_path / f'a/{kind}/train/0000 .{suffix}')
    assert 'begins or ends with a space' in (refusal(read_data(tmp_path / 'a')) or '')
    layouts.write_folders(tmp_path / 'b', {'train': 3, 'val': 2})
    image = next((tmp_path / 'b/train/cat').iterdir())
    image.rename(image.parent / b'caf\xe9.jpg'.decode('utf-8', 'surrogateescape'))
    assert 'bytes that are not UTF-8' in (refusal(read_data(tmp_path / 'b')) or '')


def test_images_turned_by_exif_are_explained(tmp_path: Path) -> None:
    layouts.write_coco(tmp_path, BOTH)
    path = tmp_path / 'train/0000.jpg'
    with Image.open(path) as image:
        exif = image.getexif()
        exif[0x0112] = 6
        image.save(path, exif=exif)
    assert re.search(r'0000.jpg: 48 x 64, 64 x 48 in \S*json; its EXIF orientation', refusal(read_data(tmp_path)) or '')


def test_evaluations_tell_files_of_one_folder_apart(tmp_path: Path) -> None:
    names = [f'{index:04d}.jpg' for index in range(10)]
    for index, name in enumerate(names):
        paint(tmp_path / 'images' / name, index)
    march = layouts.write_json(tmp_path / 'march.json', layouts.coco(names[:5]))
    april = layouts.write_json(tmp_path / 'april.json', layouts.coco(names, ids=(4, 5, 6)))
    trained = f'data_root = {str(tmp_path)!r}\ndata_source = {str(march)!r}'
    assert len(read_data(april, trained=trained).splits['test'].samples) == 10
    made = {sample.path for sample in read_data(march).splits['val'].samples}
    assert {sample.path for sample in read_data(march, trained=trained).splits['test'].samples} == made
    april.unlink()  # the folder now means the only file in it
    assert {sample.path for sample in read_data(tmp_path, trained=trained).splits['test'].samples} == made


def test_a_made_split_does_not_depend_on_what_is_left_out(tmp_path: Path) -> None:
    layouts.write_folders(tmp_path, {'': 6})
    before = {sample.path for sample in read_data(tmp_path).splits['val'].samples}
    broken = next(path for path in sorted((tmp_path / 'cat').iterdir()) if str(path) not in before)
    broken.write_bytes(b'')
    assert {sample.path for sample in read_data(tmp_path, skip_broken=True).splits['val'].samples} == before


def test_what_is_no_dataset_is_refused(tmp_path: Path) -> None:
    for path, reason in ((Path('/dev/null'), 'neither a folder nor'), (tmp_path / 'a.zip', 'neither a folder nor')):
        if path.parent == tmp_path:
            path.write_bytes(b'PK')
        with pytest.raises(UsageError, match=reason):
            read_data(path)
