"""What is wrong with a dataset is found before training, all at once, and named."""

import json
import re
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mmdet.registry import DATASETS
from PIL import Image

from mmevm.apis.check_data import main as check
from mmevm.apis.own_data import use_data
from mmevm.data.reading import read_data
from mmevm.data.summary import refusal
from mmevm.engine.config import load_config
from mmevm.errors import UsageError

from . import layouts

pytestmark = pytest.mark.openmmlab

ROOT = Path(__file__).resolve().parents[2]
BOTH = {'train': 4, 'val': 2}


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    return layouts.write_coco(tmp_path, {'train2017': 4, 'val2017': 2})


def change(root: Path, edit: Callable[[dict], Any], split: str = 'train2017') -> str:
    """Edit a COCO file; returns what is wrong with the dataset."""
    path = root / f'annotations/instances_{split}.json'
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))
    return refusal(read_data(root)) or ''


def annotation(index: int, **changes: Any) -> Callable[[dict], Any]:
    return lambda content: content['annotations'][index].update(changes)


def image(index: int, **changes: Any) -> Callable[[dict], Any]:
    return lambda content: content['images'][index].update(changes)


EDITS: dict[str, tuple[Callable[[dict], Any], str]] = {
    'no area': (annotation(1, bbox=[3, 4, 0, 9]), r'no area:\n  \S*train2017.json, annotation 2 .*0000.jpg'),
    'negative': (annotation(1, bbox=[30, 4, -9, 9]), r'no area:\n'),
    'outside': (annotation(0, bbox=[70, 4, 9, 9]), r'outside the image:\n.*annotation 1 .*70, 4, 9, 9 in 64 x 48'),
    'beyond': (annotation(0, bbox=[40, 4, 60, 9]), r'reach beyond the image:\n.*annotation 1'),
    'not a box': (annotation(0, bbox=[1, 2, 3]), r'not four numbers:\n.*annotation 1 of 0000.jpg'),
    'not a number': (annotation(0, bbox=[1, 2, 3, float('nan')]), r'not four numbers:'),
    'category': (annotation(0, category_id=9), r"'categories' do not define:\n.*annotation 1.*: 9"),
    'image id': (image(1, id=0), r'ids that occur more than once:\n.*0 of 0000.jpg, 0001.jpg'),
    'unlisted': (annotation(0, image_id=77), r'not listed:\n.*annotation 1: image_id 77'),
    'missing': (image(2, file_name='no.jpg'), r'cannot be read:\n  \S*train2017/no.jpg: no such file'),
    'size': (image(2, width=48, height=64), r'another size.*\n.*0002.jpg: 64 x 48, 48 x 64 in \S*json\n?$'),
    'twice': (lambda c: c['categories'][1].update(name='cat'), r"same name:\n.*'cat'"),
    'points': (annotation(0, segmentation=[[1, 2, 3, 4]]), r'fewer than three points:\n.*annotation 1'),
}  # fmt: skip


@pytest.mark.parametrize('name', EDITS)
def test_faults_of_coco_files_are_named(name: str, coco: Path) -> None:
    edit, pattern = EDITS[name]
    assert re.search(pattern, change(coco, edit))


def test_a_truncated_file_is_named(coco: Path) -> None:
    path = coco / 'annotations/instances_train2017.json'
    path.write_text(path.read_text()[:-40])
    assert re.search(r'cannot be read:\n  \S*train2017.json: not valid JSON', refusal(read_data(coco)) or '')


def test_a_name_of_the_validation_split_alone_is_refused(coco: Path) -> None:
    message = change(coco, lambda content: content['categories'][0].update(name='Cat'), 'val2017')
    assert 'match no category of the training split:\n' in message and "'Cat' (train: 'cat')" in message


def test_a_box_that_sticks_out_by_a_rounding_error_is_accepted(coco: Path) -> None:
    assert change(coco, lambda content: content['annotations'][0].update(bbox=[-0.6, 4, 20, 9])) == ''


def test_categories_in_another_order_keep_their_names(coco: Path) -> None:
    def reverse(content: dict) -> None:
        content['categories'].reverse()

    assert change(coco, reverse, 'val2017') == ''
    data = read_data(coco)
    assert data.splits['train'].annotations and not data.splits['val'].annotations
    assert {data.classes[t.category] for t in data.splits['val'].samples[0].things} == {'dog', 'owl'}


YOLO: dict[str, tuple[str, str]] = {
    'out of range': ('3 .5 .5 .2 .2', r'out of range \(data.yaml names the ids 0 to 2\):\n  \S*0001.txt, line 1: 3'),
    'negative id': ('-1 .5 .5 .2 .2', r'out of range .*\n  \S*0001.txt, line 1: -1'),
    'too short': ('0 .5 .5 .2', r'cannot be read:\n  \S*0001.txt, line 1: .*at least 5'),
    'words': ('cat .5 .5 .2 .2', r'cannot be read:\n  \S*0001.txt, line 1: .*class id'),
    'pixels': ('0 30 20 10 10', r'outside the image:\n  \S*0001.txt, line 1'),
    'no area': ('0 .5 .5 0 .2', r'no area:\n  \S*0001.txt, line 1'),
}


@pytest.mark.parametrize('name', YOLO)
def test_faults_of_yolo_labels_are_named(name: str, tmp_path: Path) -> None:
    layouts.write_yolo(tmp_path, BOTH)
    line, pattern = YOLO[name]
    (tmp_path / 'labels/train/0001.txt').write_text(line)
    assert re.search(pattern, refusal(read_data(tmp_path)) or '')


def test_yolo_without_labels_or_folders_is_refused(tmp_path: Path) -> None:
    layouts.write_yolo(tmp_path, BOTH, yaml='path: .\ntrain: images/train\nval: images/nowhere\nnames: [cat, dog, owl]')
    for path in (tmp_path / 'labels').rglob('*.txt'):
        path.unlink()
    message = refusal(read_data(tmp_path)) or ''
    assert 'data.yaml: val: images/nowhere' in message and 'No image of train has a label file' in message


def test_images_in_two_splits_and_wrong_counts_are_refused(tmp_path: Path) -> None:
    yaml = 'path: .\nnc: 4\ntrain: [images/train, images/val]\nval: images/val\nnames: [cat, dog, owl]'
    message = refusal(read_data(layouts.write_yolo(tmp_path, BOTH, yaml=yaml))) or ''
    assert 'nc: 4, 3 names' in message and re.search(r'more than once:\n  \S*val/0004.jpg', message)


def test_faults_of_voc_files_are_named(tmp_path: Path) -> None:
    layouts.write_voc(tmp_path, BOTH)
    folder = tmp_path / 'Annotations'
    (folder / '0000.xml').write_text('<annotation>')
    (folder / '0001.xml').write_text((folder / '0001.xml').read_text().replace('dog', 'Dog'))
    (folder / '0002.xml').write_text((folder / '0002.xml').read_text().replace('<xmin>5<', '<xmin>left<'))
    (folder / '0003.xml').write_text(layouts.voc_xml(3, 'x.jpg', (640, 480)))
    (folder / '0004.xml').unlink()
    message = refusal(read_data(tmp_path)) or ''
    for part in (
        r'0000.xml: not valid XML', r"'Dog' and 'dog'", r'0002.xml, object 1: .*left', r'0003.jpg: 64 x 48, 640 x 480',
        r'lists for val and that do not exist:\n  \S*0004.xml',
    ):  # fmt: skip
        assert re.search(part, message), part


def test_faults_of_label_maps_are_named(tmp_path: Path) -> None:
    layouts.write_masks(tmp_path, BOTH)
    (tmp_path / 'classes.txt').write_text('a\nb\nc\n')
    folder = tmp_path / 'masks/train'
    Image.fromarray(layouts.label_map(0, (0, 9, 2))).save(folder / '0000.png')
    Image.fromarray(np.zeros((20, 30), np.uint8)).save(folder / '0001.png')
    (folder / '0002.png').write_bytes(b'no image')
    (folder / '0003.png').unlink()
    message = refusal(read_data(tmp_path)) or ''
    for part in (
        r'beyond the 3 classes:\n  \S*0000.png: 9', r'0001.jpg: 64 x 48, 30 x 20 in \S*0001.png',
        r'0002.jpg: its label map \S*0002.png', r'without a label map in .*\n  \S*0003.jpg',
    ):  # fmt: skip
        assert re.search(part, message), part


def test_a_class_folder_that_training_lacks_is_refused(tmp_path: Path) -> None:
    layouts.write_folders(tmp_path, {'train': 2, 'val': 1})
    (tmp_path / 'val/cat').rename(tmp_path / 'val/cats')
    assert "val/cats (train: 'cat')" in (refusal(read_data(tmp_path)) or '')


def test_splits_without_a_class_are_noted(tmp_path: Path) -> None:
    layouts.write_folders(tmp_path, {'train': 2, 'val': 1})
    for path in (tmp_path / 'train/owl').iterdir():
        path.unlink()
    data = read_data(tmp_path)
    assert data.findings.notes['The split train has no example of these classes:'] == ["'owl'"]


def spoil(root: Path) -> None:
    """Break four files of a folder of classes, and a box."""
    (root / 'images/train/0000.jpg').write_bytes(b'')
    content = (root / 'images/train/0001.jpg').read_bytes()
    (root / 'images/train/0001.jpg').write_bytes(content[: len(content) // 2])
    (root / 'images/val/0006.jpg').write_bytes(b'<html>')
    (root / 'labels/train/0002.txt').write_text('0 .5 .5 .2 .2\n1 .5 .5 0 0')


def test_broken_images_and_objects_are_left_out_on_demand(tmp_path: Path) -> None:
    layouts.write_yolo(tmp_path, {'train': 6, 'val': 3})
    spoil(tmp_path)
    message = refusal(read_data(tmp_path)) or ''
    assert message.startswith(f'{tmp_path} has 4 problems:') and '--skip-broken' in message
    for name, reason in (('0000', 'it is empty'), ('0001', 'truncated'), ('0006', 'it is not an image')):
        assert re.search(rf'{name}.jpg: .*{reason}', message)
    data = read_data(tmp_path, skip_broken=True)
    assert refusal(data) is None
    assert {split: len(part.samples) for split, part in data.splits.items()} == {'train': 4, 'val': 2}
    assert sum(len(sample.things) for sample in data.splits['train'].samples) == 7
    assert sum(len(items) for items in data.findings.notes.values()) >= 4


def test_the_command_lists_all_problems_and_draws_a_sheet(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    root = layouts.write_yolo(tmp_path / 'data', {'train': 14, 'val': 3})
    assert check([str(root), '--out', str(tmp_path / 'good.jpg')]) == 0
    out = capsys.readouterr().out
    assert re.search(r'objects +28 +6', out) and re.search(r'  cat +\d+ +2', out)
    assert re.search(r"smallest object: 20 x 16 pixels, '\w+' in \S+jpg", out)
    with Image.open(tmp_path / 'good.jpg') as image:
        assert image.width == 4 * 328 and image.height == 4 * 328
        pixels = np.asarray(image)[4:240, 4:320]
    assert pixels.std() > 20  # not blank
    for path in (root / 'labels/train').iterdir():
        path.write_text('7 .5 .5 .2 .2')
    assert check([str(root)]) == 2
    err = capsys.readouterr().err
    assert all(f'{index:04d}.txt, line 1: 7' in err for index in range(14))


@pytest.mark.parametrize('write', [layouts.write_folders, layouts.write_masks], ids=['classes', 'masks'])
def test_sheets_of_classes_and_label_maps(write: Callable, tmp_path: Path) -> None:
    root = write(tmp_path / 'data', {'train': 2, 'val': 1})
    assert check([str(root), '--out', str(tmp_path / 'sheet.png')]) == 0
    with Image.open(tmp_path / 'sheet.png') as image:
        assert image.format == 'PNG' and np.asarray(image).std() > 20


def test_the_command_refuses_what_is_no_dataset(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert check([str(tmp_path)]) == 2
    assert 'it is empty. Expected' in capsys.readouterr().err
    assert check([str(tmp_path), '--out', 'sheet.txt']) == 2


@pytest.mark.parametrize('shape', [[[1, 2, 3, 4]], [1, 2, 3, 4, 5, 6], dict(size=[3, 3], counts='1')])
def test_polygons_that_boxes_do_without(shape: Any, coco: Path, tmp_path: Path) -> None:
    """They stop a config for masks; one for boxes trains on the boxes."""
    path = coco / 'annotations/instances_train2017.json'
    content = json.loads(path.read_text())
    content['annotations'][0]['segmentation'] = shape
    path.write_text(json.dumps(content))
    small = {'train_dataloader.dataset.pipeline.2.scale': '(64,64)'}
    without_masks = {'model.roi_head.mask_head': 'None', 'test_evaluator.metric': 'bbox'}
    for config, options, is_refused in (
        ('mask_rcnn_evm_t_1x', small, True),
        ('mask_rcnn_evm_t_1x', small | without_masks, False),
        ('retinanet_evm_t', small, False),
    ):
        cfg = load_config(ROOT / f'configs/{config}.py', work_dir=str(tmp_path / config), cfg_options=options)
        with pytest.raises(UsageError, match='annotation 1 ') if is_refused else nullcontext():
            use_data(cfg, str(coco), config)
        if not is_refused:
            dataset = DATASETS.build({**cfg.train_dataloader.dataset, '_scope_': 'mmdet'})
            samples = [dataset[index] for index in range(len(dataset))]
            boxes = sum(len(sample['data_samples'].gt_instances) for sample in samples)
            assert boxes == len(content['annotations'])
