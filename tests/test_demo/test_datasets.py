"""`demo.mini_data.datasets`: exact labels under the datasets' own numbers, which the three libraries read."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from demo.mini_data import make_digits
from demo.mini_data.backgrounds import STUFF
from demo.mini_data.datasets import (
    ADE20K_SHAPES,
    ADE20K_STUFF,
    COCO_CATEGORIES,
    COCO_SHAPES,
    IMAGENET_SHAPES,
    TRAIN_DIGITS,
    annotate,
    label_map,
)
from demo.mini_data.scene import SceneStyle, mask_to_box, render_scene
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


def test_coco_files_have_its_layout(mini: Path) -> None:
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
def test_coco_categories_are_mmdets() -> None:
    from mmdet.datasets import CocoDataset

    assert tuple(category['name'] for category in COCO_CATEGORIES) == CocoDataset.METAINFO['classes']
    ids = {category['name']: category['id'] for category in COCO_CATEGORIES}
    # The categories around the gaps of the numbering.
    known = {'person': 1, 'fire hydrant': 11, 'stop sign': 13, 'giraffe': 25, 'backpack': 27, 'umbrella': 28}
    known |= {'handbag': 31, 'bottle': 44, 'wine glass': 46, 'bed': 65, 'dining table': 67, 'toilet': 70, 'tv': 72}
    known |= {'refrigerator': 82, 'book': 84, 'toothbrush': 90}
    assert {name: ids[name] for name in known} == known


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


# ADE20K's names of the objects; those of the background surfaces are the same here and there.
_ADE20K_OBJECTS = {44: 'signboard', 120: 'ball', 136: 'vase', 137: 'traffic light', 149: 'clock'}


def test_label_map_shows_objects_over_the_scenery() -> None:
    style = SceneStyle(groups=[['clock'], ['vase']], counts=(2, 4), extents=(0.3, 0.5))
    scene = render_scene(np.random.default_rng(0), 128, style)
    labels = label_map(scene)
    covered = np.zeros_like(labels, dtype=bool)
    for item in scene.objects:
        assert set(labels[item.mask]) == {149 if item.name == 'clock' else 136}
        covered |= item.mask
    expected = np.array([ADE20K_STUFF[name] for name in STUFF])[scene.stuff]
    np.testing.assert_array_equal(labels[~covered], expected[~covered])


def test_ade20k_files_have_its_layout(mini: Path) -> None:
    root = mini / 'ade/ADEChallengeData2016'
    for split, folder, count in (('train', 'training', TRAIN), ('val', 'validation', VAL)):
        names = [f'ADE_{split}_{i + 1:08d}' for i in range(count)]
        assert sorted(path.name for path in (root / 'images' / folder).iterdir()) == [f'{n}.jpg' for n in names]
        for name in names:
            with Image.open(root / 'annotations' / folder / f'{name}.png') as image:
                assert image.mode == 'L' and image.size == (SIZE, SIZE)


@pytest.mark.openmmlab
def test_ade20k_labels_are_mmsegs() -> None:
    from mmseg.datasets import ADE20KDataset

    classes = ADE20KDataset.METAINFO['classes']
    assert {label: classes[label - 1] for label in ADE20K_SHAPES} == _ADE20K_OBJECTS
    for name, label in ADE20K_STUFF.items():
        assert label == (0 if name == 'other' else classes.index(name) + 1)


@pytest.mark.openmmlab
def test_ade20k_dataset_reads_images_and_labels(mini: Path) -> None:
    from mmseg.datasets import ADE20KDataset

    root = mini / 'ade/ADEChallengeData2016'
    dataset = ADE20KDataset(
        data_root=str(root),
        data_prefix=dict(img_path='images/training', seg_map_path='annotations/training'),
        pipeline=[dict(type='mmseg.LoadImageFromFile'), dict(type='mmseg.LoadAnnotations', reduce_zero_label=True)],
    )
    assert len(dataset) == TRAIN
    for i in range(TRAIN):
        sample = dataset[i]
        stored = np.asarray(Image.open(root / 'annotations/training' / (Path(sample['img_path']).stem + '.png')))
        assert sample['img'].shape == (SIZE, SIZE, 3)
        # 0, unlabelled, becomes 255, which losses and metrics pass over.
        np.testing.assert_array_equal(sample['gt_seg_map'], stored - np.uint8(1))


# What mmpretrain calls the classes.
_IMAGENET_NAMES = {
    'basketball': 'basketball',
    'soccer ball': 'soccer ball',
    'tennis ball': 'tennis ball',
    'umbrella': 'umbrella',
    'vase': 'vase',
    'clock': 'wall clock',
    'stop sign': 'street sign',
    'traffic light': 'traffic light, traffic signal, stoplight',
}


@pytest.mark.parametrize(('split', 'count'), [('train', TRAIN), ('val', VAL)])
def test_imagenet_meta_files_list_every_image_with_its_class(mini: Path, split: str, count: int) -> None:
    root = mini / 'imagenet'
    lines = (root / f'meta/{split}.txt').read_text().splitlines()
    files = {path.relative_to(root / split).as_posix() for path in (root / split).rglob('*.JPEG')}
    listed = dict(line.rsplit(' ', 1) for line in lines)
    assert len(lines) == count and set(listed) == files
    index_of = {wnid: index for index, wnid in IMAGENET_SHAPES.values()}
    assert all(index_of[name.split('/')[0]] == int(label) for name, label in listed.items())


def test_imagenet_wnids_stand_at_their_indices() -> None:
    data = pytest.importorskip('timm.data')
    info = data.ImageNetInfo('imagenet-1k')
    for index, wnid in IMAGENET_SHAPES.values():
        assert info.index_to_label_name(index) == wnid


@pytest.mark.openmmlab
def test_imagenet_indices_are_mmpretrains() -> None:
    from mmpretrain.datasets.categories import IMAGENET_CATEGORIES

    assert {shape: IMAGENET_CATEGORIES[index] for shape, (index, _) in IMAGENET_SHAPES.items()} == _IMAGENET_NAMES


@pytest.mark.openmmlab
@pytest.mark.parametrize(('split', 'count'), [('train', TRAIN), ('val', VAL)])
def test_imagenet_reads_true_indices_of_a_thousand(mini: Path, split: str, count: int) -> None:
    from mmpretrain.datasets import ImageNet

    dataset = ImageNet(
        data_root=str(mini / 'imagenet'), split=split, pipeline=[dict(type='mmpretrain.LoadImageFromFile')]
    )
    assert len(dataset) == count and len(dataset.CLASSES) == 1000
    index_of = {wnid: index for index, wnid in IMAGENET_SHAPES.values()}
    for i in range(count):
        sample = dataset[i]
        assert sample['gt_label'] == index_of[Path(sample['img_path']).parent.name]
        assert sample['img'].shape == (SIZE, SIZE, 3)


@pytest.fixture(scope='module')
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip('sklearn')
    root = tmp_path_factory.mktemp('digits') / 'tree'
    assert make_digits(root, size=16)
    return root


def test_every_digit_lies_once_under_its_label(digits: Path) -> None:
    from sklearn.datasets import load_digits

    labels = load_digits().target
    for split, numbers in (('train', range(TRAIN_DIGITS)), ('val', range(TRAIN_DIGITS, len(labels)))):
        found = {int(path.stem): int(path.parent.name) for path in (digits / split).glob('*/*.png')}
        assert found == {number: labels[number] for number in numbers}


def test_an_image_is_its_digit_enlarged(digits: Path) -> None:
    from sklearn.datasets import load_digits

    source = load_digits()
    with Image.open(digits / 'train' / str(source.target[7]) / '0007.png') as image:
        assert image.mode == 'RGB' and image.size == (16, 16)
        small = np.array(image.convert('L').resize((8, 8), Image.Resampling.BOX)) * (16 / 255)
    # Bicubic enlargement overshoots at edges, and nothing more.
    assert np.corrcoef(small.ravel(), source.images[7].ravel())[0, 1] > 0.99


def test_digits_that_is_there_is_left_alone_and_a_foreign_one_refused(digits: Path, tmp_path: Path) -> None:
    assert not make_digits(digits, size=16)
    (tmp_path / 'mine.txt').write_text('mine')
    with pytest.raises(FileExistsError, match='did not write'):
        make_digits(tmp_path)
