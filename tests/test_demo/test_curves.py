"""`demo.visualization.curves`: reads MMEngine's scalars and draws them."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from demo.visualization import draw_curves
from demo.visualization.curves import read_scalars, series


@pytest.fixture
def scalars(tmp_path: Path) -> Path:
    records = [dict(step=i, lr=1e-3, loss=2.0 / i, loss_cls=1.0 / i, loss_bbox=1.0 / i) for i in range(1, 21)]
    records.insert(10, {'step': 10, 'coco/bbox_mAP': 0.1, 'coco/bbox_mAP_50': 0.3})
    path = tmp_path / 'scalars.json'
    path.write_text('\n'.join(json.dumps(record) for record in records) + '\n')
    return path


def test_series_picks_the_records_that_have_the_quantity(scalars: Path) -> None:
    records = read_scalars(scalars)
    steps, values = series(records, 'loss')
    np.testing.assert_array_equal(steps, range(1, 21))
    np.testing.assert_allclose(values, 2.0 / steps)
    assert [part.tolist() for part in series(records, 'coco/bbox_mAP_50')] == [[10], [0.3]]


def test_draw_curves_draws_three_panels(scalars: Path, tmp_path: Path) -> None:
    path = draw_curves(scalars, tmp_path / 'curves.png', 'title')
    picture = np.array(Image.open(path).convert('RGB')).astype(int)
    saturation = picture.max(-1) - picture.min(-1) > 60
    thirds = np.array_split(saturation, 3, axis=1)
    assert all(third.any() for third in thirds)


def test_draw_curves_refuses_a_file_without_losses(tmp_path: Path) -> None:
    (tmp_path / 'scalars.json').write_text('{"coco/bbox_mAP": 0.5, "step": 0}\n')
    with pytest.raises(ValueError, match='must hold training logs with a `loss`'):
        draw_curves(tmp_path / 'scalars.json', tmp_path / 'curves.png')
