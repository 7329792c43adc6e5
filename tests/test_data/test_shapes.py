"""Shapes of objects: which cover something, where, and which boxes follow from them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmevm.data.checks import check_samples
from mmevm.data.reading import read_data
from mmevm.data.records import Findings, Sample, Split, Thing, UserData
from mmevm.data.shapes import shape_box

from . import layouts

SIZE = [48, 64]
NOTHING, OUTSIDE, APART = 'cover nothing', 'outside the image', 'apart from the box'
BOX = (4.0, 6.0, 20.0, 16.0)
WHOLE = [4, 6, 24, 6, 24, 22, 4, 22]


def faults(shape: Any, box: tuple = BOX) -> str:
    """The headings of what is wrong with an object."""
    sample = Sample('a.jpg', [Thing(0, box, shape, source='here')], size=(64, 48))
    data = UserData('detection', 'COCO', Path(), ['cat'], {'train': Split([sample])}, Findings())
    check_samples(data)
    return ' '.join(data.findings.faults)


def runs(counts: Any) -> dict[str, Any]:
    return dict(size=SIZE, counts=counts)


@pytest.mark.parametrize(
    'shape, heading',
    [
        ([[value + 500 for value in WHOLE]], OUTSIDE),
        ([[value / 64 for value in WHOLE]], APART),
        ([[40, 30, 60, 30, 60, 45]], APART),
        ([[5, 5, 5, 5, 5, 5]], NOTHING),
        ([[5, 7, 10, 12, 20, 22]], NOTHING),
        (runs([48 * 64]), NOTHING),
        (runs([48 * 64, 0]), NOTHING),
        (runs([3000, 72]), APART),
        (runs([-5, 48 * 64 + 5]), 'do not fit'),
        (runs([True, 48 * 64 - 1]), 'do not fit'),
        (runs('garbage!!'), 'do not fit'),
        (runs('0' * 9), 'do not fit'),
        (runs('ooo'), 'do not fit'),
        (runs(5), 'do not fit'),
    ],
)
def test_shapes_that_cover_nothing_are_refused(shape: Any, heading: str) -> None:
    assert heading in faults(shape)


@pytest.mark.parametrize('box', [(0.0, 6.0, 20.0, 16.0), BOX])
def test_fractions_beside_boxes_in_pixels_are_refused_at_the_corner(box: tuple) -> None:
    assert APART in faults([[0.1, 0.1, 0.9, 0.1, 0.9, 0.9]], box)


@pytest.mark.parametrize(
    'shape, box',
    [
        ([WHOLE], BOX),
        ([WHOLE, [5, 5, 5, 5, 5, 5]], BOX),
        ([[4, 6, 24, 6.01, 24, 6.02]], BOX),
        ([[4, 6, 24, 22, 24, 6, 4, 22]], BOX),  # the halves of its area cancel out
        ([[3.6, 5, 3.9, 5, 3.9, 9]], BOX),
        ([[0.2, 0.2, 0.9, 0.2, 0.9, 0.9]], (0.0, 0.0, 1.5, 1.5)),
        ([[-3, -3, 5, 7, 10, 7]], BOX),
    ],
)
def test_thin_and_odd_shapes_are_accepted(shape: Any, box: tuple) -> None:
    assert not faults(shape, box)


def test_boxes_of_run_lengths_are_those_of_pycocotools() -> None:
    from pycocotools import mask

    generator = np.random.default_rng(0)
    for _ in range(50):
        pixels = np.zeros(SIZE, np.uint8, order='F')
        top, left = generator.integers(0, 40), generator.integers(0, 50)
        pixels[top : top + generator.integers(1, 48), left : left + generator.integers(1, 20)] = 1
        pixels *= generator.random(SIZE) < generator.choice([0.1, 1])
        encoded = mask.encode(pixels)
        for counts in (encoded['counts'], encoded['counts'].decode()):
            box = shape_box(runs(counts))
            assert (box is None) == (not pixels.any())
            assert box is None or box == tuple(mask.toBbox(encoded))


@pytest.mark.parametrize('box', [None, []])
@pytest.mark.parametrize('shape', [[WHOLE], runs([4 * 48 + 6, 16, *[32, 16] * 19, 48 * 40 + 26])])
def test_boxes_follow_from_shapes(box: Any, shape: Any, tmp_path: Path) -> None:
    root = layouts.write_coco(tmp_path, {'train': 1, 'val': 1})
    path = root / 'annotations/instances_train.json'
    content = json.loads(path.read_bytes())
    content['annotations'][0] |= dict(bbox=box, segmentation=shape)
    layouts.write_json(path, content)
    data = read_data(root)
    assert not data.findings.problems and not data.findings.faults
    assert data.splits['train'].samples[0].things[0].box == BOX


@pytest.mark.parametrize('box', [None, []])
def test_objects_without_a_box_whose_shape_covers_nothing_are_left_out_on_demand(box: Any, tmp_path: Path) -> None:
    root = layouts.write_coco(tmp_path, {'train': 3, 'val': 2})
    (path,) = (file for file in root.rglob('*.json') if 'train' in file.name)
    content = json.loads(path.read_text())
    content['annotations'][0] |= dict(bbox=box, segmentation=[[5, 5, 5, 5, 5, 5]])
    path.write_text(json.dumps(content))
    data = read_data(root)
    assert not data.findings.problems
    assert 'Objects without a box, and with a shape that covers nothing:' in data.findings.faults
    left = read_data(root, skip_broken=True)
    assert sum(len(sample.things) for sample in left.splits['train'].samples) == len(content['annotations']) - 1
