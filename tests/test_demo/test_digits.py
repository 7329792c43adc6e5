"""`demo.mini_data.digits`: scikit-learn's pictures, each once, under the folder of its digit."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from demo.mini_data.digits import TRAIN_IMAGES, make_digits

datasets = pytest.importorskip('sklearn.datasets')


@pytest.fixture(scope='module')
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp('digits') / 'tree'
    assert make_digits(root, size=16)
    return root


def test_every_digit_lies_once_under_its_label(tree: Path) -> None:
    labels = datasets.load_digits().target
    for split, numbers in (('train', range(TRAIN_IMAGES)), ('val', range(TRAIN_IMAGES, len(labels)))):
        found = {int(path.stem): int(path.parent.name) for path in (tree / split).glob('*/*.png')}
        assert found == {number: labels[number] for number in numbers}


def test_a_picture_is_its_digit_enlarged(tree: Path) -> None:
    digits = datasets.load_digits()
    with Image.open(tree / 'train' / str(digits.target[7]) / '0007.png') as picture:
        assert picture.mode == 'RGB' and picture.size == (16, 16)
        small = np.array(picture.convert('L').resize((8, 8), Image.Resampling.BOX)) * (16 / 255)
    # Bicubic enlargement overshoots at edges, and nothing more.
    assert np.corrcoef(small.ravel(), digits.images[7].ravel())[0, 1] > 0.99


def test_a_tree_that_is_there_is_left_alone_and_a_foreign_one_refused(tree: Path, tmp_path: Path) -> None:
    assert not make_digits(tree, size=16)
    (tmp_path / 'mine.txt').write_text('mine')
    with pytest.raises(FileExistsError, match='did not write'):
        make_digits(tmp_path)
