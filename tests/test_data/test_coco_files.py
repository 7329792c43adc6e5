"""COCO files as other tools write them, and what the libraries make of what is written for them."""

import codecs
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mmengine.registry import init_default_scope

from mmevm.data import writing
from mmevm.data.checks import check_shapes
from mmevm.data.reading import read_data
from mmevm.engine.checks.images import check_images
from mmevm.engine.checks.samples import Checks
from mmevm.errors import UsageError

from . import layouts

pytestmark = pytest.mark.openmmlab

BOTH = {'train': 3, 'val': 2}


def built(data: Any, split: str, folder: Path) -> Any:
    """MMDetection's dataset of what is written for a split, with masks."""
    from mmdet.datasets import CocoDataset

    init_default_scope('mmdet')
    settings = writing.write_coco(data, data.splits[split], split, folder)
    pipeline = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True, with_mask=True)]
    return CocoDataset(metainfo=dict(classes=tuple(data.classes)), pipeline=pipeline, test_mode=True, **settings)


def edit(path: Path, change: Any) -> Path:
    content = json.loads(path.read_bytes())
    change(content)
    return layouts.write_json(path, content)


@pytest.mark.parametrize('flag', ['iscrowd', 'ignore'])
def test_a_crowd_without_a_polygon_gets_that_of_its_box(flag: str, tmp_path: Path) -> None:
    root = layouts.write_coco(tmp_path / 'data', BOTH)

    def change(content: dict) -> None:
        content['annotations'][0][flag] = 1
        content['annotations'][0].pop('segmentation')

    for split in BOTH:
        edit(root / f'annotations/instances_{split}.json', change)
    data = read_data(root)
    check_shapes(data)
    assert not data.findings.problems and not data.findings.faults
    for split in BOTH:
        masks = built(data, split, tmp_path)[0]['gt_masks']
        assert len(masks) == 2 and masks.to_ndarray()[0].sum() == pytest.approx(20 * 16, abs=40)


@pytest.mark.parametrize('encoding', ['utf-8-sig', 'utf-16', 'utf-8'])
def test_files_of_any_encoding_are_read_by_the_libraries(encoding: str, tmp_path: Path) -> None:
    root = layouts.write_roboflow(tmp_path / 'data', {'train': 3, 'valid': 2})
    for path in root.rglob('*.json'):
        path.write_bytes(path.read_text().encode(encoding))
    assert encoding != 'utf-8-sig' or path.read_bytes().startswith(codecs.BOM_UTF8)
    # A folder is searched for names of the format in its files; those in UTF-16 are given.
    data = read_data(root / 'train/_annotations.coco.json' if encoding == 'utf-16' else root)
    assert sum(len(built(data, split, tmp_path)) for split in data.splits) == (3 if encoding == 'utf-16' else 5)


def test_another_image_of_the_same_name_does_not_stand_in(tmp_path: Path) -> None:
    root, names = tmp_path / 'data', [f'{folder}/1.jpg' for folder in 'abcde']
    for index, name in enumerate(['1.jpg', *names]):
        layouts.paint(root / 'images' / name, index)
    layouts.write_json(root / 'annotations/instances_train.json', layouts.coco([*names, 'f/1.jpg']))
    data = read_data(root)
    assert [Path(sample.path).parent.name for sample in data.samples()] == [*'abcdef']
    assert any('f/1.jpg' in item for items in data.findings.faults.values() for item in items)


@pytest.mark.parametrize('flag, crowd', [('0', False), ('false', False), (False, False), ('1', True), (1, True)])
def test_flags_may_be_text(flag: Any, crowd: bool, tmp_path: Path) -> None:
    root = layouts.write_coco(tmp_path / 'data', BOTH)
    edit(
        root / 'annotations/instances_train.json',
        lambda content: [item.update(iscrowd=flag) for item in content['annotations']],
    )
    things = [thing for sample in read_data(root).splits['train'].samples for thing in sample.things]
    assert {thing.crowd for thing in things} == {crowd}


def test_a_group_may_be_called_like_its_only_class(tmp_path: Path) -> None:
    root = layouts.write_coco(tmp_path / 'data', BOTH)

    def change(content: dict) -> None:
        names = [dict(id=0, name='cat', supercategory='none'), dict(id=1, name='cat', supercategory='cat')]
        content['categories'] = names
        content['annotations'] = [item for item in content['annotations'] if item['category_id'] == 1]

    for split in BOTH:
        edit(root / f'annotations/instances_{split}.json', change)
    data = read_data(root)
    assert data.classes == ['cat'] and not data.findings.problems
    edit(root / 'annotations/instances_train.json', lambda content: content['annotations'][0].update(category_id=0))
    assert read_data(root).findings.problems


def test_objects_that_are_annotated_twice_are_named(tmp_path: Path) -> None:
    root = layouts.write_coco(tmp_path / 'data', BOTH)

    def double(content: dict) -> None:
        items = content['annotations']
        content['annotations'] = items + [item | dict(id=item['id'] + len(items)) for item in items]

    assert not any('more than once' in heading for heading in read_data(root).findings.notes)
    edit(root / 'annotations/instances_train.json', double)
    notes = read_data(root).findings.notes
    assert [len(items) for heading, items in notes.items() if 'more than once' in heading] == [6]


def test_images_that_are_in_no_splits_list_are_named(tmp_path: Path) -> None:
    root = layouts.write_coco(tmp_path / 'data', BOTH)
    for name in ('0000.jpg', 'more.jpg'):
        layouts.paint(root / 'images' / name, 7)
    layouts.write_json(root / 'annotations/instances_default.json', layouts.coco(['0000.jpg', 'more.jpg'], 7))
    notes = read_data(root).findings.notes
    assert [items for heading, items in notes.items() if 'are in no split' in heading] == [['more.jpg']]


def test_a_class_may_begin_with_a_space(tmp_path: Path) -> None:
    from mmpretrain.datasets import CustomDataset

    root = layouts.write_folders(tmp_path / 'data', {'train': 2, 'val': 1})
    for split in ('train', 'val'):
        (root / split / 'cat').rename(root / split / ' cat')
    for folder in (root, root / 'train'):  # the space is in the middle of a name, and at its beginning
        data = read_data(folder)
        name = next(iter(data.splits))
        dataset = CustomDataset(classes=data.classes, **writing.write_list(data, data.splits[name], name, tmp_path))
        assert all(Path(dataset.get_data_info(index)['img_path']).is_file() for index in range(len(dataset)))


def test_a_link_to_the_data_is_the_same_data(tmp_path: Path) -> None:
    root = layouts.write_folders(tmp_path / 'real', {'': 10})
    (tmp_path / 'link').symlink_to(root)
    for trained, evaluated in (('link', 'real'), ('real', 'link'), ('real', 'real')):
        data = read_data(tmp_path / evaluated, trained=f'data_root = {str(tmp_path / trained)!r}\n')
        assert data.redrawn and len(data.splits['test'].samples) == 6
    data = read_data(root, trained=f'data_root = {str(tmp_path)!r}\n')
    assert not data.redrawn and len(data.splits['test'].samples) == 30


@pytest.mark.parametrize(
    'shape, kind, colours, refused',
    [
        ((8, 9, 3), np.uint8, 'color', False),
        ((8, 9), np.uint16, 'color', False),
        ((8, 9, 5), np.uint16, 'color', True),
        ((8, 9, 5), np.uint8, 'unchanged', True),
        ((8, 9), np.float32, 'unchanged', False),
    ],
)
def test_what_opencv_cannot_decode_is_named(
    shape: tuple[int, ...], kind: type, colours: str, refused: bool, tmp_path: Path
) -> None:
    from mmpretrain.datasets import CustomDataset
    from tifffile import imwrite

    path = tmp_path / 'cat/0.tif'
    path.parent.mkdir()
    imwrite(path, np.ones(shape, kind), photometric='rgb' if shape[2:] == (3,) else 'minisblack', planarconfig='contig')
    init_default_scope('mmpretrain')
    pipeline = [dict(type='LoadImageFromFile', color_type=colours)]
    dataset = CustomDataset(data_root=str(tmp_path), pipeline=pipeline, extensions=('.tif',), with_label=True)
    if refused:
        with pytest.raises(UsageError, match=f'(?s){path}: OpenCV cannot decode.*tifffile'):
            check_images(dataset, Checks())
    else:
        assert check_images(dataset, Checks()) == 0 and dataset[0]['img'].size
