"""One small tree for all tests that read."""

from pathlib import Path

import pytest

from demo.mini_data import make_mini_data

SIZE, TRAIN, VAL = 96, 9, 8


@pytest.fixture(scope='session')
def mini(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with miniature COCO, ADE20K and ImageNet; tests must not change it."""
    out = tmp_path_factory.mktemp('data') / 'mini'
    make_mini_data(out, seed=3, image_size=SIZE, train_images=TRAIN, val_images=VAL)
    return out
