"""`demo.visualization.segmentation_sheet`: colours lie where the labels say, in truth and prediction alike."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from demo.visualization import draw_segmentation_sheet
from demo.visualization.segmentation_sheet import color_table, overlay


def test_overlay_colours_the_labels_and_leaves_the_unlabelled() -> None:
    picture = np.full((2, 2, 3), 100, dtype=np.uint8)
    labels = np.array([[0, 3], [3, 5]], dtype=np.uint8)
    drawn = overlay(picture, labels, {3: (200, 0, 100), 5: (0, 0, 0)})
    assert drawn[0, 0].tolist() == [100, 100, 100]
    assert drawn[0, 1].tolist() == drawn[1, 0].tolist() == [160, 40, 100]
    assert drawn[1, 1].tolist() == [40, 40, 40]


def test_color_table_gives_every_label_its_own_colour() -> None:
    table = color_table([9, 3, 150])
    assert list(table) == [3, 9, 150] and len(set(table.values())) == 3


def test_the_sheet_shows_where_prediction_and_truth_differ(tmp_path: Path) -> None:
    for name in ('images', 'truth', 'predicted'):
        (tmp_path / name).mkdir()
    Image.new('RGB', (64, 64), 'white').save(tmp_path / 'images/a.jpg')
    truth = np.full((64, 64), 4, dtype=np.uint8)
    predicted = truth.copy()
    predicted[:32] = 7
    Image.fromarray(truth).save(tmp_path / 'truth/a.png')
    Image.fromarray(predicted).save(tmp_path / 'predicted/a.png')
    folders = [tmp_path / name for name in ('images', 'truth', 'predicted')]
    sheet = np.array(Image.open(draw_segmentation_sheet(*folders, {4: 'four', 7: 'seven'}, tmp_path / 'sheet.png')))
    upper, lower = sheet[80, [100, 308, 516]].tolist(), sheet[180, [100, 308, 516]].tolist()
    assert upper[0] == [255, 255, 255] and upper[1] != upper[2]
    assert lower[1] == lower[2] == upper[1] != lower[0]


def test_a_folder_without_pictures_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r'must hold at least one \.jpg, got none'):
        draw_segmentation_sheet(tmp_path, tmp_path, tmp_path, {}, tmp_path / 'sheet.png')
