"""`demo.mini_data.imagenet`: pictures under ImageNet-1k's folders and indices, read by mmpretrain as they are."""

from pathlib import Path

import pytest

from demo.mini_data.categories import IMAGENET_SHAPES
from tests.test_demo.conftest import SIZE, TRAIN, VAL

# What mmpretrain calls the classes.
_NAMES = {
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
def test_meta_files_list_every_picture_with_its_class(mini: Path, split: str, count: int) -> None:
    root = mini / 'imagenet'
    lines = (root / f'meta/{split}.txt').read_text().splitlines()
    files = {path.relative_to(root / split).as_posix() for path in (root / split).rglob('*.JPEG')}
    listed = dict(line.rsplit(' ', 1) for line in lines)
    assert len(lines) == count and set(listed) == files
    index_of = {wnid: index for index, wnid in IMAGENET_SHAPES.values()}
    assert all(index_of[name.split('/')[0]] == int(label) for name, label in listed.items())


def test_wnids_stand_at_their_indices() -> None:
    data = pytest.importorskip('timm.data')
    info = data.ImageNetInfo('imagenet-1k')
    for index, wnid in IMAGENET_SHAPES.values():
        assert info.index_to_label_name(index) == wnid


@pytest.mark.openmmlab
def test_indices_are_those_of_mmpretrain() -> None:
    from mmpretrain.datasets.categories import IMAGENET_CATEGORIES

    assert {shape: IMAGENET_CATEGORIES[index] for shape, (index, _) in IMAGENET_SHAPES.items()} == _NAMES


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
