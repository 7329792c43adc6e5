"""`demo.visualization.detection_sheet`: boxes land where they belong, and a sheet is written."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from demo.visualization import draw_detection_sheet
from demo.visualization.detection_sheet import Box, draw_boxes

RED = (255, 0, 0)


@pytest.fixture
def coco(tmp_path: Path) -> dict[str, str]:
    """Two grey pictures with one object each, and results for the first."""
    images = [dict(id=i, file_name=f'{i}.png', width=160, height=120) for i in (1, 2)]
    for image in images:
        Image.new('RGB', (160, 120), '#808080').save(tmp_path / image['file_name'])
    annotations = [dict(id=i, image_id=i, category_id=18, bbox=[20, 30, 60, 50]) for i in (1, 2)]
    categories = [dict(id=18, name='dog'), dict(id=1, name='person')]
    truth = dict(images=images, annotations=annotations, categories=categories)
    results = [dict(image_id=1, category_id=18, bbox=[22, 31, 58, 50], score=0.9)]
    paths = {'annotations': tmp_path / 'truth.json', 'results': tmp_path / 'results.json'}
    for content, path in ((truth, paths['annotations']), (results, paths['results'])):
        path.write_text(json.dumps(content))
    return {**{key: str(path) for key, path in paths.items()}, 'images': str(tmp_path)}


def test_draw_boxes_outlines_the_box_at_the_enlarged_place() -> None:
    picture = Image.new('RGB', (100, 80))
    out = np.array(draw_boxes(picture, [Box((10, 40, 30, 20), 'dog', '#ff0000')], scale=2.0))
    assert out.shape == (160, 200, 3)
    assert tuple(out[100, 20]) == RED and tuple(out[100, 80]) == RED and tuple(out[120, 50]) == RED
    assert not out[100, 50].any() and not out[:, 150:].any()


def test_draw_boxes_keeps_labels_inside_the_picture() -> None:
    out = np.array(
        draw_boxes(Image.new('RGB', (100, 80)), [Box((90, 0, 10, 10), 'traffic light', '#ff0000', 0.5)], 2.0)
    )
    # The label's plate is much wider than the box, so it must have moved left.
    assert (out[..., 0] == 255).any(axis=0)[100:160].any()


def test_draw_detection_sheet_writes_truth_left_and_prediction_right(coco: dict[str, str], tmp_path: Path) -> None:
    path = draw_detection_sheet(**coco, path=tmp_path / 'sheet.png')
    sheet = np.array(Image.open(path))
    assert path == str(tmp_path / 'sheet.png')
    first, second = sheet[:, 12:656], sheet[:, 668:1312]
    # The second picture has no prediction: its right half shows the plain picture, its left half the drawn one.
    assert len(np.unique(second[80:250, 340:620].reshape(-1, 3), axis=0)) == 1
    assert len(np.unique(second[80:250, 20:300].reshape(-1, 3), axis=0)) > 1
    assert (first[80:250, 340:620] != second[80:250, 340:620]).any()


def test_draw_detection_sheet_leaves_out_what_scores_below_the_threshold(coco: dict[str, str], tmp_path: Path) -> None:
    high = np.array(Image.open(draw_detection_sheet(**coco, path=tmp_path / 'a.png', score_threshold=0.95)))
    low = np.array(Image.open(draw_detection_sheet(**coco, path=tmp_path / 'b.png', score_threshold=0.5)))
    assert (high != low).any() and (high[:, :332] == low[:, :332]).all()


def test_draw_detection_sheet_refuses_an_empty_data_set(tmp_path: Path) -> None:
    empty: dict[str, Any] = dict(images=[], annotations=[], categories=[])
    (tmp_path / 'empty.json').write_text(json.dumps(empty))
    with pytest.raises(ValueError, match='must list at least one image, got none'):
        draw_detection_sheet(tmp_path / 'empty.json', tmp_path / 'x.json', tmp_path, tmp_path / 'sheet.png')


def test_draw_detection_sheet_lays_masks_over_the_picture(tmp_path: Path) -> None:
    Image.new('RGB', (32, 32), 'white').save(tmp_path / 'a.png')
    entry = dict(id=1, image_id=1, category_id=3, bbox=[0, 0, 32, 32])
    left, right = ([[x, 0, x + 16, 0, x + 16, 32, x, 32]] for x in (0, 16))
    truth = dict(
        images=[dict(id=1, file_name='a.png', width=32, height=32)],
        categories=[dict(id=3, name='car')],
        annotations=[dict(entry, segmentation=left)],
    )
    (tmp_path / 'truth.json').write_text(json.dumps(truth))
    (tmp_path / 'results.json').write_text(json.dumps([dict(entry, segmentation=right, score=0.9)]))
    path = draw_detection_sheet(
        tmp_path / 'truth.json', tmp_path / 'results.json', tmp_path, tmp_path / 'sheet.png', masks=True
    )
    # The middles of the halves, in the true and in the predicted picture; the first colour of all, half over white.
    row = np.array(Image.open(path).convert('RGB'))[30 + 160, [12 + 80, 12 + 240, 336 + 80, 336 + 240]]
    assert (row[[1, 2]] == 255).all()
    np.testing.assert_allclose(row[[0, 3]], [[0xF2, 0x8C, 0xA5]] * 2, atol=3)
