"""Where demo/web draws an image, against the predictor in Python; by Node.js, which needs no browser."""

import itertools
import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from mmevm.deploy import load
from mmevm.deploy.predictor import to_size
from tests.test_deploy.test_predictor import INPUT, write_model

PAGE = Path(__file__).resolve().parents[2] / 'demo/web/index.html'
LINEAR = {'interpolation': 'bilinear', 'antialias': False}
KEPT = {'scale': [64, 40], 'keep_ratio': True, **LINEAR}
STRETCHED = {'scale': [50, 30], 'keep_ratio': False, **LINEAR}
EDGE = {'edge': 'short', 'size': 48, **LINEAR}
CROP = {'crop': [32, 40]}
PAD = {'pad': [64, 72], 'value': [9, 9, 9]}
SQUARE = {'pad': None, 'value': [9, 9, 9]}
MULTIPLE = {'pad': [0, 0], 'divisor': 32, 'value': [9, 9, 9]}
STEPS = {
    'nothing': [],
    'kept ratio': [KEPT],
    'stretched': [STRETCHED],
    'by a factor': [{'factor': [0.5, 0.5], 'keep_ratio': True, **LINEAR}],
    'by two factors': [{'factor': [1.3, 0.7], 'keep_ratio': False, **LINEAR}],
    'by two factors within': [{'factor': [1.3, 0.7], 'keep_ratio': True, **LINEAR}],
    'edge and crop': [EDGE, CROP],
    'crop of a small image': [{'crop': [400, 90]}],
    'padded': [KEPT, PAD],
    'to a square': [KEPT, SQUARE],
    'to multiples': [KEPT, MULTIPLE],
    'crop, then stretched': [EDGE, CROP, STRETCHED],
    'square, then smaller': [SQUARE, KEPT],
    'crop, then padded': [CROP, PAD],
    'padded, then cropped, then padded': [SQUARE, CROP, PAD],
}


IMAGES = ((60, 100), (130, 70), (64, 64), (13, 48))
SIZES = (None, (56, 88))
CASES = list(itertools.product(STEPS, SIZES, IMAGES))


def steps_of(name: str, size: tuple[int, int] | None) -> list[dict]:
    return to_size(STEPS[name], size) if size else STEPS[name]


@pytest.fixture(scope='module')
def layouts() -> dict:
    """What the page's function returns, by case; one process takes as long for all of them."""
    page = PAGE.read_text(encoding='utf-8')
    functions = page[page.index('function resized(') : page.index('function prepare(')]
    calls = [f'layout({width}, {height}, {json.dumps(steps_of(name, size))})' for name, size, (height, width) in CASES]
    script = f'{functions}; console.log(JSON.stringify([{", ".join(calls)}]))'
    done = subprocess.run(['node', '-e', script], capture_output=True, text=True, check=True)
    return dict(zip(CASES, json.loads(done.stdout), strict=True))


@pytest.mark.skipif(shutil.which('node') is None, reason='there is no Node.js')
@pytest.mark.parametrize('name, size, image', CASES)
def test_layout_is_that_of_python(
    layouts: dict, tmp_path: Path, name: str, size: tuple[int, int] | None, image: tuple[int, int]
) -> None:
    settings = json.loads(INPUT) | {'mean': None, 'std': None, 'resize': steps_of(name, size)}
    model = write_model(tmp_path / 'copy.onnx', task='backbone', input=json.dumps(settings), mmevm_version='0')
    # A white image on a dark canvas: where the white ends, the image does.
    data, scale = load(model).prepare(np.full((*image, 3), 255, np.uint8))
    white = data[0, 0] > 132
    place = layouts[name, size, image]
    assert place['size'] == [data.shape[3], data.shape[2]]
    assert [place['w'], place['h']] == pytest.approx([image[1] * scale[0], image[0] * scale[1]])
    ends = zip((place['w'] - place['left'], place['h'] - place['top']), place['size'], place['shown'], strict=True)
    shown = [min(limits) for limits in ends]
    assert shown == pytest.approx([white.any(0).sum(), white.any(1).sum()], abs=1)
