"""`demo.figures`: boxes, masks, labels, bars and curves are where the data say."""

import json
from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from demo import figures

pytestmark = pytest.mark.openmmlab


@pytest.fixture
def axes() -> Axes:
    return Figure().subplots()


def pixels(path: str) -> np.ndarray:
    return np.array(Image.open(path).convert('RGB')).astype(int)


def test_objects_are_drawn_with_box_label_and_mask(axes: Axes) -> None:
    mask = np.zeros((40, 60), dtype=bool)
    mask[10:20, 5:25] = True
    entries = [
        ({'bbox': [5, 10, 20, 10]}, 'dog 0.90', '#ff0000', mask),
        ({'bbox': [50, 0, 10, 9]}, 'cat', '#00ff00', None),
    ]
    figures.draw_objects(axes, np.zeros((40, 60, 3), dtype=np.uint8), entries)
    dog, cat = axes.patches
    assert (dog.get_xy(), dog.get_width(), dog.get_height()) == ((5, 10), 20, 10)
    assert dog.get_edgecolor() == (1, 0, 0, 1) and cat.get_xy() == (50, 0)
    first, second = axes.texts
    assert (first.get_text(), first.get_position(), first.get_ha(), first.get_va()) == (
        'dog 0.90',
        (5, 10),
        'left',
        'bottom',
    )
    # At the right and the upper edge a label stays inside.
    assert (second.get_position(), second.get_ha(), second.get_va()) == ((60, 0), 'right', 'top')
    _, overlay = axes.images
    np.testing.assert_array_equal(overlay.get_array(), mask[..., None] * [1, 0, 0, 0.5])


@pytest.fixture
def coco(tmp_path: Path) -> list[Path]:
    """Two grey images with one object each, and results for the first: annotations, results, images."""
    images = [dict(id=i, file_name=f'{i}.png', width=160, height=120) for i in (1, 2)]
    for image in images:
        Image.new('RGB', (160, 120), '#808080').save(tmp_path / image['file_name'])
    square = [[20, 30, 80, 30, 80, 80, 20, 80]]
    annotations = [
        dict(id=i, image_id=i, category_id=18, bbox=[20, 30, 60, 50], segmentation=square, iscrowd=0, area=3000)
        for i in (1, 2)
    ]
    categories = [dict(id=18, name='dog'), dict(id=1, name='person')]
    results = [dict(image_id=1, category_id=18, bbox=[22, 31, 58, 50], score=0.9, segmentation=square)]
    (tmp_path / 'truth.json').write_text(
        json.dumps(dict(images=images, annotations=annotations, categories=categories))
    )
    (tmp_path / 'results.json').write_text(json.dumps(results))
    return [tmp_path / 'truth.json', tmp_path / 'results.json', tmp_path]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[list[tuple]]:
    """The objects of every panel, in the order of drawing."""
    panels = []
    monkeypatch.setattr(figures, 'draw_objects', lambda axes, image, objects: panels.append(objects))
    return panels


def test_detections_have_truth_left_and_prediction_right(coco: list, tmp_path: Path, drawn: list) -> None:
    assert figures.draw_detections(*coco, tmp_path / 'sheet.png') == str(tmp_path / 'sheet.png')
    assert [[label for _, label, _, _ in panel] for panel in drawn] == [['dog'], ['dog 0.90'], ['dog'], []]
    assert len({color for panel in drawn for _, _, color, _ in panel}) == 1
    assert all(mask is None for panel in drawn for *_, mask in panel)


def test_detections_below_the_threshold_are_left_out(coco: list, tmp_path: Path, drawn: list) -> None:
    figures.draw_detections(*coco, tmp_path / 'sheet.png', score_threshold=0.95)
    assert [len(panel) for panel in drawn] == [1, 0, 1, 0]


def test_detections_have_masks_on_request(coco: list, tmp_path: Path, drawn: list) -> None:
    figures.draw_detections(*coco, tmp_path / 'sheet.png', masks=True)
    mask = np.zeros((120, 160))
    mask[30:80, 20:80] = 1
    np.testing.assert_array_equal(drawn[0][0][3], mask)
    np.testing.assert_array_equal(drawn[1][0][3], mask)


def test_overlay_colours_the_labels_and_leaves_the_unlabelled() -> None:
    image = np.full((2, 2, 3), 100, dtype=np.uint8)
    labels = np.array([[0, 3], [3, 5]], dtype=np.uint8)
    drawn = figures.overlay(image, labels, {3: '#c80064', 5: '#000000'})
    assert drawn[0, 0].tolist() == [100, 100, 100]
    assert drawn[0, 1].tolist() == drawn[1, 0].tolist() == [160, 40, 100]
    assert drawn[1, 1].tolist() == [40, 40, 40]


def test_color_table_gives_every_label_its_own_colour() -> None:
    table = figures.color_table([9, 3, 150])
    assert list(table) == [3, 9, 150] and len(set(table.values())) == 3


def test_segmentations_show_where_prediction_and_truth_differ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ('images', 'truth', 'predicted'):
        (tmp_path / name).mkdir()
    Image.new('RGB', (64, 64), 'white').save(tmp_path / 'images/a.jpg')
    truth = np.full((64, 64), 4, dtype=np.uint8)
    predicted = truth.copy()
    predicted[:32] = 7
    Image.fromarray(truth).save(tmp_path / 'truth/a.png')
    Image.fromarray(predicted).save(tmp_path / 'predicted/a.png')
    shown = []
    monkeypatch.setattr(Axes, 'imshow', lambda self, image: shown.append(image))
    folders = [tmp_path / name for name in ('images', 'truth', 'predicted')]
    figures.draw_segmentations(*folders, {4: 'four', 7: 'seven'}, tmp_path / 'sheet.png')
    image, true, found = shown
    assert (image == 255).all() and (true == true[0, 0]).all()
    assert (found[32:] == true[32:]).all() and (found[:32] != true[:32]).any(axis=-1).all()


def test_bars_are_the_five_likeliest_classes_and_green_for_the_true_one(axes: Axes) -> None:
    names = [f'class {index}' for index in range(7)]
    figures.draw_classes(axes, 4, np.array([0.1, 0.0, 0.3, 0.05, 0.25, 0.2, 0.1]), names)
    bars = axes.containers[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == [f'class {index}' for index in (2, 4, 5, 0, 6)]
    assert [bar.get_width() for bar in bars] == [0.3, 0.25, 0.2, 0.1, 0.1]
    red, green, grey = (tuple(bar.get_facecolor()) for bar in bars[:3])
    assert red[0] > 2 * red[1] and green[1] > 2 * green[0] and max(grey[:3]) - min(grey[:3]) < 0.15


def test_classifications_show_image_and_bars(tmp_path: Path) -> None:
    Image.new('RGB', (16, 16), (0, 0, 255)).save(tmp_path / 'image.png')
    item = (str(tmp_path / 'image.png'), 1, np.array([0.1, 0.9]))
    drawn = pixels(figures.draw_classifications([item], ['a', 'b'], tmp_path / 'sheet.png'))
    counts = [(np.abs(drawn - color).max(axis=-1) < 3).sum() for color in ((0, 0, 255), (0x2A, 0x9D, 0x3A))]
    assert min(counts) > 500


@pytest.fixture
def scalars(tmp_path: Path) -> Path:
    records = [dict(step=i, lr=1e-3, loss=2.0 / i, loss_cls=1.0 / i, loss_bbox=1.0 / i) for i in range(1, 21)]
    records.insert(10, {'step': 1, 'coco/bbox_mAP': 0.1, 'coco/bbox_mAP_50': 0.3})
    path = tmp_path / 'scalars.json'
    path.write_text('\n'.join(json.dumps(record) for record in records) + '\n')
    return path


def test_series_count_validations_in_iterations(scalars: Path) -> None:
    found = figures.read_series(scalars)
    assert found['loss'] == (list(range(1, 21)), [2.0 / i for i in range(1, 21)])
    assert found['coco/bbox_mAP_50'] == ([10], [0.3])


def test_curves_have_three_panels(scalars: Path, tmp_path: Path) -> None:
    drawn = pixels(figures.draw_curves(scalars, tmp_path / 'curves.png', 'title'))
    colourful = drawn.max(axis=-1) - drawn.min(axis=-1) > 60
    assert all(third.any() for third in np.array_split(colourful, 3, axis=1))


def test_found_objects_are_right_once() -> None:
    truth = [dict(bbox=[0, 0, 10, 10], category_id=1), dict(bbox=[20, 0, 10, 10], category_id=1)]
    boxes = [([0, 1, 10, 10], 1, 0.4), ([0, 0, 10, 10], 1, 0.9), ([20, 0, 10, 10], 2, 0.8), ([26, 0, 10, 10], 1, 0.7)]
    predicted = [dict(bbox=box, category_id=category, score=score) for box, category, score in boxes]
    assert figures.match(truth, predicted) == [False, True, False, False]
    assert figures.match([], predicted) == [False] * 4 and figures.match(truth, []) == []


def test_found_objects_are_drawn_beside_the_annotated_ones(coco: list[Path], tmp_path: Path) -> None:
    drawn = pixels(figures.draw_found(*coco, tmp_path / 'out.png'))
    left, right = np.array_split(drawn, 2, axis=1)
    yellow, green = [255, 225, 25], [42, 157, 58]
    assert (np.abs(left - yellow).sum(2) < 60).any() and not (np.abs(right - yellow).sum(2) < 60).any()
    assert (np.abs(right - green).sum(2) < 60).any() and not (np.abs(left - green).sum(2) < 60).any()
