"""`demo.visualization.classification_sheet`: five bars a picture, coloured by whether the class is right."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from demo.visualization import Classified, draw_classification_sheet
from demo.visualization.classification_sheet import top_classes

NAMES = [f'class {index}' for index in range(7)]
GREEN, RED = (0x2A, 0x9D, 0x3A), (0xD6, 0x27, 0x28)


@pytest.fixture
def picture(tmp_path: Path) -> str:
    path = tmp_path / 'picture.png'
    Image.new('RGB', (16, 16), (0, 0, 255)).save(path)
    return str(path)


def count(path: str, color: tuple[int, int, int]) -> int:
    return int((np.array(Image.open(path).convert('RGB')) == color).all(-1).sum())


def test_top_classes_orders_by_score() -> None:
    assert top_classes([0.1, 0.0, 0.3, 0.05, 0.25, 0.2, 0.1]) == [2, 4, 5, 0, 6]


def test_a_right_first_class_is_green_and_as_long_as_its_score(picture: str, tmp_path: Path) -> None:
    areas = []
    for score in (0.4, 0.8):
        scores = [score, *[(1 - score) / 6] * 6]
        path = draw_classification_sheet([Classified(picture, 0, scores)], NAMES, tmp_path / 'sheet.png')
        assert count(path, (0, 0, 255)) > 100 * 100 and count(path, RED) == 0
        areas.append(count(path, GREEN))
    assert areas[1] == pytest.approx(2 * areas[0], rel=0.05)


def test_a_wrong_first_class_is_red_and_the_true_one_green(picture: str, tmp_path: Path) -> None:
    item = Classified(picture, 1, [0.6, 0.3, 0.1, 0, 0, 0, 0])
    path = draw_classification_sheet([item], NAMES, tmp_path / 'sheet.png')
    assert count(path, RED) > count(path, GREEN) > 0


def test_nothing_to_draw_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match='must hold at least one picture, got none'):
        draw_classification_sheet([], NAMES, tmp_path / 'sheet.png')
