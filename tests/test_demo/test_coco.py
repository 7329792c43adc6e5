"""`demo.mini_data.coco`: exact annotations under COCO's ids, read by mmdet as they are."""

import json
from pathlib import Path

import numpy as np
import pytest

from demo.mini_data.categories import COCO_CATEGORIES, COCO_SHAPES
from demo.mini_data.coco import annotate
from demo.mini_data.polygons import mask_to_box
from demo.mini_data.scene import SceneStyle, render_scene
from tests.test_demo.conftest import SIZE, TRAIN, VAL


def test_annotate_decodes_to_the_masks_pixel_by_pixel() -> None:
    coco_mask = pytest.importorskip('pycocotools.mask')
    style = SceneStyle(groups=tuple(COCO_SHAPES.values()), counts=(5, 7), extents=(0.2, 0.5))
    count = 0
    for seed in range(6):
        scene = render_scene(np.random.default_rng(seed), 160, style)
        for item, entry in zip(scene.objects, annotate(scene, 7, 100), strict=True):
            code = coco_mask.merge(coco_mask.frPyObjects(entry['segmentation'], 160, 160))
            np.testing.assert_array_equal(coco_mask.decode(code).astype(bool), item.mask)
            assert entry['bbox'] == mask_to_box(item.mask) == coco_mask.toBbox(code).tolist()
            assert entry['area'] == item.mask.sum() == coco_mask.area(code)
            assert item.name in COCO_SHAPES[entry['category_id']]
            count += 1
    assert count > 15


def test_files_have_cocos_layout(mini: Path) -> None:
    ids = []
    for split, count in (('train', TRAIN), ('val', VAL)):
        content = json.loads((mini / f'coco/annotations/instances_{split}2017.json').read_text())
        assert set(content) == {'info', 'licenses', 'images', 'annotations', 'categories'}
        assert len(content['categories']) == 80 and len(content['images']) == count
        files = sorted(path.name for path in (mini / f'coco/{split}2017').iterdir())
        assert files == [image['file_name'] for image in content['images']]
        assert all(
            len(name) == 16 and int(name[:12]) == image['id']
            for name, image in zip(files, content['images'], strict=True)
        )
        ids += [('image', image['id']) for image in content['images']]
        ids += [('annotation', entry['id']) for entry in content['annotations']]
    assert len(set(ids)) == len(ids)


@pytest.mark.openmmlab
def test_categories_are_those_of_mmdet() -> None:
    from mmdet.datasets import CocoDataset

    names = [name for members in COCO_CATEGORIES.values() for name in members.values()]
    ids = [number for members in COCO_CATEGORIES.values() for number in members]
    assert tuple(names) == CocoDataset.METAINFO['classes']
    assert ids == sorted(ids) and ids[0] == 1 and ids[-1] == 90


@pytest.mark.openmmlab
def test_coco_dataset_reads_the_boxes_and_labels(mini: Path) -> None:
    from mmdet.datasets import CocoDataset

    dataset = CocoDataset(
        data_root=str(mini / 'coco') + '/',
        ann_file='annotations/instances_train2017.json',
        data_prefix=dict(img='train2017/'),
        filter_cfg=dict(filter_empty_gt=True, min_size=32),
        pipeline=[
            dict(type='mmdet.LoadImageFromFile'),
            dict(type='mmdet.LoadAnnotations', with_bbox=True, with_mask=True),
        ],
    )
    assert len(dataset) == TRAIN
    content = json.loads((mini / 'coco/annotations/instances_train2017.json').read_text())
    names = {entry['id']: entry['name'] for entry in content['categories']}
    for i in range(TRAIN):
        sample = dataset[i]
        truth = [entry for entry in content['annotations'] if entry['image_id'] == sample['img_id']]
        assert sample['img'].shape == (SIZE, SIZE, 3)
        assert [CocoDataset.METAINFO['classes'][label] for label in sample['gt_bboxes_labels']] == [
            names[entry['category_id']] for entry in truth
        ]
        x, y, width, height = np.array([entry['bbox'] for entry in truth]).T
        np.testing.assert_array_equal(sample['gt_bboxes'].tensor.numpy(), np.stack([x, y, x + width, y + height], 1))
        assert sample['gt_masks'].to_ndarray().sum() == sum(entry['area'] for entry in truth)
