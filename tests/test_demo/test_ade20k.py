"""`demo.mini_data.ade20k`: label maps under ADE20K's numbers, read by mmseg as they are."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from demo.mini_data.ade20k import label_map
from demo.mini_data.backgrounds import STUFF
from demo.mini_data.categories import ADE20K_SHAPES, ADE20K_STUFF
from demo.mini_data.scene import SceneStyle, render_scene
from tests.test_demo.conftest import SIZE, TRAIN, VAL

# ADE20K's names of the objects; those of the background surfaces are the same here and there.
_OBJECTS = {44: 'signboard', 120: 'ball', 136: 'vase', 137: 'traffic light', 149: 'clock'}


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


def test_files_have_ade20ks_layout(mini: Path) -> None:
    root = mini / 'ade/ADEChallengeData2016'
    for split, folder, count in (('train', 'training', TRAIN), ('val', 'validation', VAL)):
        names = [f'ADE_{split}_{i + 1:08d}' for i in range(count)]
        assert sorted(path.name for path in (root / 'images' / folder).iterdir()) == [f'{n}.jpg' for n in names]
        for name in names:
            with Image.open(root / 'annotations' / folder / f'{name}.png') as image:
                assert image.mode == 'L' and image.size == (SIZE, SIZE)


@pytest.mark.openmmlab
def test_labels_are_those_of_mmseg() -> None:
    from mmseg.datasets import ADE20KDataset

    classes = ADE20KDataset.METAINFO['classes']
    assert {label: classes[label - 1] for label in ADE20K_SHAPES} == _OBJECTS
    for name, label in ADE20K_STUFF.items():
        assert label == (0 if name == 'other' else classes.index(name) + 1)


@pytest.mark.openmmlab
def test_ade20k_dataset_reads_pictures_and_labels(mini: Path) -> None:
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
