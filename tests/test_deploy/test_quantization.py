"""Images for calibration, and how agreement is measured; files with 8-bit products are in test_export.py."""

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from mmevm.deploy import Prediction
from mmevm.deploy.export import main
from mmevm.deploy.quantization import MOST_IMAGES, agreement, calibration_images


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder of images, some of them further below."""
    folder = tmp_path / 'images'
    (folder / 'more').mkdir(parents=True)
    for i in range(6):
        cv2.imwrite(str(folder / ('more' if i % 2 else '') / f'{i}.png'), np.zeros((8, 8, 3), np.uint8))
    return folder


def test_images_are_spread_over_a_folder(images: Path, tmp_path: Path) -> None:
    assert [path.name for path in calibration_images(images)] == ['0.png', '2.png', '4.png', '1.png', '3.png', '5.png']
    many = tmp_path / 'many'
    many.mkdir()
    for i in range(MOST_IMAGES + 50):
        shutil.copy(images / '0.png', many / f'{i:03}.png')
    chosen = calibration_images(many)
    assert len(chosen) == MOST_IMAGES and chosen[0].stem == '000' and chosen[-1].stem == '149'


def test_what_is_refused(images: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / 'empty').mkdir()
    (tmp_path / 'damaged').mkdir()
    (tmp_path / 'damaged/a.png').write_bytes((images / '0.png').read_bytes()[:40])
    out = tmp_path / 'model.onnx'
    for folder, message in (
        (tmp_path / 'none', 'needs a folder of images'),
        (images / '0.png', 'needs a folder of images'),
        (tmp_path / 'empty', 'there are none in'),
        (tmp_path / 'damaged', 'a.png cannot be read as an image'),
    ):
        assert main(['configs/fpn_evm_t.py', '--out', str(out), '--int8', str(folder)]) == 2
        assert message in capsys.readouterr().err
    assert main(['configs/fpn_evm_t.py', '--out', 'x.pt2', '--format', 'pt2', '--int8', str(images)]) == 2
    assert 'are for ONNX files' in capsys.readouterr().err
    assert not out.exists()


def test_agreement_is_that_of_the_task() -> None:
    def predict(task: str, **values: object) -> Prediction:
        return Prediction(np.zeros((4, 4, 3), np.uint8), task, [], **values)

    boxes = np.array([[0, 0, 4, 4], [2, 2, 4, 4]], np.float32)
    objects = predict('detection', boxes=boxes, labels=np.array([0, 1]))
    shifted = predict('detection', boxes=boxes + [[1, 0, 1, 0], [2, 0, 2, 0]], labels=np.array([0, 1]))
    assert agreement(objects, objects) == 1 and agreement(objects, shifted) == 0.5
    assert agreement(objects, predict('detection', boxes=boxes, labels=np.array([1, 1]))) == 0.5
    classes = np.arange(16).reshape(4, 4)
    assert agreement(*(predict('segmentation', classes=c) for c in (classes, classes % 8))) == 0.5
    best = [predict('classification', labels=np.array(labels)) for labels in ([1, 0], [0, 1])]
    assert agreement(best[0], best[0]) == 1 and agreement(*best) == 0
    maps = [predict('backbone', maps={'map0': np.full((2, 2), value)}) for value in (1.0, 0.9)]
    assert agreement(*maps) == pytest.approx(0.9)
