"""`demo.baselines` against counts by hand."""

import json
from pathlib import Path

import numpy as np
import pytest

from demo.baselines import box_grid_ap50, constant_mask_ap50, constant_miou, constant_top1


def test_constant_top1_takes_its_class_from_the_training() -> None:
    # 2 is the most frequent in the training, though 1 is in the validation.
    assert constant_top1([0, 2, 2, 1], [1, 1, 2, 0]) == 25.0


def test_constant_miou_counts_every_class_that_is_there() -> None:
    train = [np.array([[4, 4], [0, 1]], dtype=np.uint8)]
    val = [np.array([[4, 1, 1, 0]], dtype=np.uint8), np.array([[9, 0, 0, 0]], dtype=np.uint8)]
    # Class 4: one pixel of the four labelled ones; classes 1 and 9: nothing.
    assert constant_miou(train, val) == pytest.approx(100 * (1 / 4) / 3)


def write(path: Path, boxes: list[tuple[int, int, int, int]]) -> Path:
    """COCO annotations of one square object (x0, y0, x1, y1) in each picture of 40 by 40."""
    corners = [[x0, y0, x1, y0, x1, y1, x0, y1] for x0, y0, x1, y1 in boxes]
    annotations = [
        dict(
            id=i + 1,
            image_id=i,
            category_id=3,
            iscrowd=0,
            segmentation=[corners[i]],
            area=(x1 - x0) * (y1 - y0),
            bbox=[x0, y0, x1 - x0, y1 - y0],
        )
        for i, (x0, y0, x1, y1) in enumerate(boxes)
    ]
    images = [dict(id=i, width=40, height=40, file_name='') for i in range(len(boxes))]
    path.write_text(json.dumps(dict(images=images, annotations=annotations, categories=[dict(id=3, name='x')])))
    return path


@pytest.mark.parametrize(
    'boxes, expected',
    [([(10, 10, 30, 30)] * 2, 1.0), ([(0, 0, 8, 8)] * 2, 0.0), ([(10, 10, 30, 30), (0, 0, 8, 8)], 51 / 101)],
    ids=['all', 'none', 'half'],
)
def test_constant_mask_ap50_is_right_where_objects_lie_as_in_the_training(
    boxes: list, expected: float, tmp_path: Path
) -> None:
    train = write(tmp_path / 'train.json', [(10, 10, 30, 30), (10, 10, 30, 30), (0, 0, 4, 4)])
    # COCO's precision is read at 101 recalls.
    assert constant_mask_ap50(train, write(tmp_path / 'val.json', boxes)) == pytest.approx(expected, abs=0.01)


def test_box_grid_ap50_is_right_for_objects_on_the_grid(tmp_path: Path) -> None:
    train = write(tmp_path / 'train.json', [(0, 0, 8, 12), (0, 0, 12, 8)])  # on average 10 x 10
    on, beside = write(tmp_path / 'on.json', [(10, 20, 20, 30)]), write(tmp_path / 'beside.json', [(15, 25, 25, 35)])
    # One of the grid's 16 boxes, which all have the same score.
    assert 0 < box_grid_ap50(train, on) <= 1 and box_grid_ap50(train, beside) == 0
