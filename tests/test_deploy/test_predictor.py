"""The predictor without torch, its arithmetic of pixels, and what it refuses; results are in test_export.py."""

import json
import math
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from PIL import Image

from mmevm.deploy import Prediction, Predictor, load, onnxruntime_library
from mmevm.deploy.pixels import enlarge, paste_mask, resize, resize_nearest
from mmevm.deploy.predictor import to_size

ROOT = Path(__file__).resolve().parents[2]
INPUT = (
    '{"dtype": "float32", "color": "RGB", "mean": [0, 0, 0], "std": [255, 255, 255], "resize": ['
    '{"scale": [8, 6], "keep_ratio": true, "interpolation": "bilinear", "antialias": false}]}'
)


def write_model(
    path: Path, size: Sequence[Any] = ('height', 'width'), channels: int = 3, output: str = 'map0', **metadata: str
) -> Path:
    """Write a model that returns its input."""
    shape = ['batch', channels, *size]
    images, copy = (helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ('images', output))
    graph = helper.make_graph([helper.make_node('Identity', ['images'], [output])], 'copy', [images], [copy])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 18)], ir_version=10)
    helper.set_model_props(model, metadata)
    onnx.save(model, path)
    return path


@pytest.fixture
def copying(tmp_path: Path) -> Predictor:
    return load(write_model(tmp_path / 'copy.onnx', task='backbone', input=INPUT, mmevm_version='0'), threads=1)


def test_neither_torch_nor_mmengine_is_imported(tmp_path: Path) -> None:
    path = write_model(tmp_path / 'copy.onnx', task='backbone', input=INPUT, mmevm_version='0')
    code = f"""
import sys, time
start = time.process_time()
import mmevm.deploy
seconds = time.process_time() - start
import numpy as np
mmevm.deploy.load({str(path)!r})(np.zeros((6, 8, 3), np.uint8))
assert not {{'torch', 'mmengine', 'onnx'}} & set(sys.modules)
assert seconds < 1, seconds
import mmengine  # from here on mmevm is known to it
assert mmengine.registry.MODELS.get('EfficientVMamba') is mmevm.backbones.EfficientVMamba
assert sys.modules['mmevm.backbones'].__spec__.origin.endswith('__init__.py')
import torch
assert torch.ops.mmevm
"""
    subprocess.run([sys.executable, '-c', code], check=True, cwd=ROOT)


def test_an_image_is_prepared_as_the_config_says(copying: Predictor, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (12, 10, 3), np.uint8)
    (tmp_path / 'images').mkdir()
    Image.fromarray(pixels).save(tmp_path / 'images/a.png')
    expected = cv2.resize(pixels, (6, 7)) / 255  # 0.6 times as large: the short side decides
    for image in (pixels, tmp_path / 'images/a.png'):
        found = copying(image)
        np.testing.assert_array_equal(found.image, pixels)
        np.testing.assert_allclose(found.maps['map0'].transpose(1, 2, 0), expected, atol=1.5 / 255)
    assert len(copying(tmp_path / 'images')) == len(copying([pixels])) == 1


@pytest.mark.parametrize('size', [(5, 9), (16, 21), (11, 13)])
def test_resizing_is_that_of_opencv(size: tuple[int, int]) -> None:
    image = np.random.default_rng(0).random((11, 13, 3)).astype(np.float32)
    expected = cv2.resize(image, size[::-1], interpolation=cv2.INTER_LINEAR)
    np.testing.assert_allclose(resize(image, *size), expected, atol=1e-5)
    classes = np.arange(143).reshape(11, 13)
    assert resize_nearest(classes, 22, 26)[::2, ::2].tolist() == classes.tolist()


@pytest.mark.openmmlab
def test_masks_are_pasted_as_by_mmdet() -> None:
    import torch
    from mmdet.models.roi_heads.mask_heads.fcn_mask_head import _do_paste_mask

    masks = np.random.default_rng(0).random((3, 7, 7)).astype(np.float32)
    boxes = np.array([[3.2, 4.1, 17.9, 15], [-2, -3, 4, 30], [5, 5, 5, 9]], np.float32)
    for mask, box in zip(masks[:2], boxes[:2], strict=True):
        expected, _ = _do_paste_mask(torch.tensor(mask)[None, None], torch.tensor(box)[None], 20, 25, skip_empty=False)
        np.testing.assert_allclose(paste_mask(mask, box, 20, 25), expected[0], atol=1e-5)
    assert not paste_mask(masks[2], boxes[2], 20, 25).any()


def test_drawings_show_what_was_found() -> None:
    image = np.zeros((60, 80, 3), np.uint8)
    boxes, scores = np.array([[10, 30, 40, 50], [50, 5, 70, 20]], np.float32), np.array([0.9, 0.2])
    masks = np.zeros((2, 60, 80), bool)
    masks[0, 35:45, 15:35] = True
    found = Prediction(image, 'detection', ['cat'], scores, np.array([0, 7]), boxes, masks)
    drawing = found.draw()
    assert not image.any()
    assert drawing[50, 20:40].any(axis=1).all()  # the lower side
    assert drawing[44, 30].any() and not drawing[48, 30].any()  # inside the mask, and between it and the box
    assert not drawing[5:20, 50:70].any()
    assert found.draw(score=0.1)[20, 55:70].any(axis=1).all()
    assert Prediction(image, 'classification', [], np.array([0.1, 0.9]), np.array([1, 0])).draw().any()
    classes = np.zeros((60, 80), np.int32)
    classes[:30] = 1
    drawing = Prediction(image, 'segmentation', [], classes=classes).draw()
    assert len(np.unique(drawing.reshape(-1, 3), axis=0)) == 2


def test_a_library_that_is_not_built(copying: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr('mmevm.deploy.predictor._PACKAGE', tmp_path)
    with pytest.raises(FileNotFoundError, match='is not built .*MMEVM_BUILD_EXT=1'):
        onnxruntime_library()
    path = write_model(tmp_path / 'copy.onnx', task='backbone', input=INPUT, mmevm_version='0')
    assert load(path)(np.zeros((6, 8, 3), np.uint8)).maps['map0'].shape == (3, 6, 8)


def test_images_are_padded(tmp_path: Path) -> None:
    steps = ', {"pad": [10, 12], "value": [1, 2, 3]}, {"pad": null, "value": [9, 9, 9]}'
    path = write_model(
        tmp_path / 'copy.onnx',
        task='backbone',
        input=INPUT.replace('false}]', 'false}' + steps + ']'),
        mmevm_version='0',
    )
    data, scale = load(path).prepare(np.full((12, 16, 3), 51, np.uint8))
    assert data.shape == (1, 3, 12, 12) and scale == (0.5, 0.5)
    assert (data[0, :, :6, :8] * 255).round().tolist() == np.full((3, 6, 8), 51).tolist()
    assert (data[0, :, 9, 11] * 255).round().tolist() == [3, 2, 1]  # the config's values are BGR
    assert (data[0, :, 11, 11] * 255).round().tolist() == [9, 9, 9]


PLAIN = {'interpolation': 'bilinear', 'antialias': False}
RESIZE = {'scale': [12, 12], 'keep_ratio': True, **PLAIN}
PAD = {'pad': [12, 12], 'value': [9, 9, 9]}
SQUARE = {'pad': None, 'value': [9, 9, 9]}


def prepared(path: Path, steps: list[dict], image: tuple[int, int], size: Sequence[Any]) -> tuple[Any, Any]:
    """The input for a grey image without normalisation, and its scale."""
    settings = json.loads(INPUT) | {'mean': None, 'std': None, 'resize': steps}
    model = write_model(path, size, task='backbone', input=json.dumps(settings), mmevm_version='0')
    data, scale = load(model).prepare(np.full((*image, 3), 51, np.uint8))
    return data[0, 0], scale


@pytest.mark.parametrize(
    ('image', 'size', 'inside'),
    [
        ((6, 12), ('height', 'width'), (6, 12)),
        ((6, 12), (12, 12), (6, 12)),
        ((6, 12), (8, 8), (4, 8)),
        ((24, 12), (24, 24), (24, 12)),
        ((6, 12), (8, 32), (8, 16)),
        ((12, 6), (8, 32), (8, 4)),
    ],
)
def test_an_image_keeps_its_ratio_in_a_padded_input(
    tmp_path: Path, image: tuple[int, int], size: tuple[Any, Any], inside: tuple[int, int]
) -> None:
    data, scale = prepared(tmp_path / 'copy.onnx', [RESIZE, PAD], image, size)
    expected = np.full([12 if isinstance(side, str) else side for side in size], 9)
    expected[: inside[0], : inside[1]] = 51
    assert data.tolist() == expected.tolist()
    assert scale == (inside[1] / image[1], inside[0] / image[0])


@pytest.mark.parametrize(('image', 'padded'), [((6, 12), (8, 12)), ((9, 12), (12, 12)), ((12, 3), (12, 4))])
def test_sides_are_padded_to_multiples(tmp_path: Path, image: tuple[int, int], padded: tuple[int, int]) -> None:
    steps = [RESIZE, {'pad': [0, 0], 'divisor': 4, 'value': [9, 9, 9]}]
    data, scale = prepared(tmp_path / 'copy.onnx', steps, image, ('height', 'width'))
    expected = np.full(padded, 9)
    expected[: image[0], : image[1]] = 51
    assert data.tolist() == expected.tolist() and scale == (1, 1)


@pytest.mark.parametrize('steps', [[], [RESIZE], [RESIZE, PAD], [SQUARE, {'crop': [8, 8]}], [PAD]])
def test_a_file_of_a_fixed_size_says_how_to_get_there(tmp_path: Path, steps: list[dict]) -> None:
    for image in ((6, 12), (30, 9)):
        expected, scale = prepared(tmp_path / 'copy.onnx', steps, image, (8, 24))
        assert expected.shape == (8, 24)
        for size in (('height', 'width'), (8, 24)):
            data, scale_too = prepared(tmp_path / 'copy.onnx', to_size(steps, (8, 24)), image, size)
            assert data.tolist() == expected.tolist() and scale_too == scale


def test_without_padding_an_image_is_stretched_to_a_fixed_size(tmp_path: Path) -> None:
    data, scale = prepared(tmp_path / 'copy.onnx', [RESIZE], (6, 12), (8, 12))
    assert data.tolist() == np.full((8, 12), 51).tolist() and scale == (1, 8 / 6)


@pytest.mark.parametrize('fixed', [False, True])
def test_steps_are_done_in_the_order_of_the_config(tmp_path: Path, fixed: bool) -> None:
    path, wide = tmp_path / 'copy.onnx', (6, 12)
    data, scale = prepared(path, [SQUARE, {'crop': [8, 8]}], wide, (8, 8) if fixed else ('height', 'width'))
    assert data.tolist() == [[51] * 8] * 4 + [[9] * 8] * 4 and scale == (1, 1)
    smaller = RESIZE | {'scale': [6, 6], 'keep_ratio': False}
    data, scale = prepared(path, [SQUARE, smaller], wide, (6, 6) if fixed else ('height', 'width'))
    assert data[:2].tolist() == [[51] * 6] * 2 and data[4:].tolist() == [[9] * 6] * 2 and scale == (0.5, 0.5)


@pytest.mark.parametrize(('options', 'expected'), [({}, [0, 0, 1]), ({'threshold': -1.0}, [0, 1, 1])])
def test_one_map_is_compared_with_the_threshold_of_the_file(tmp_path: Path, options: dict, expected: list[int]) -> None:
    metadata = {'task': 'segmentation', 'input': INPUT, 'options': json.dumps(options), 'mmevm_version': '0'}
    predictor = load(write_model(tmp_path / 'copy.onnx', channels=1, output='logits', **metadata))
    found = Prediction(np.zeros((1, 3, 3), np.uint8), 'segmentation', [])
    predictor._finish_segmentation(found, {'logits': np.array([[[-2, -0.5, 0.5]]], np.float32)}, (1.0, 1.0))
    assert found.classes.tolist() == [expected]


@pytest.mark.openmmlab
def test_masks_of_the_input_are_enlarged_as_by_mmdet() -> None:
    import torch
    import torch.nn.functional as F

    logits, (height, width), scale = torch.randn(1, 1, 6, 8), (37, 50), (0.9, 0.95)
    full = F.interpolate(logits, scale_factor=8, mode='bilinear')
    size = [math.ceil(48 / scale[1]), math.ceil(64 / scale[0])]
    expected = F.interpolate(full, size=size, mode='bilinear', align_corners=False)[0, 0, :height, :width]
    np.testing.assert_allclose(enlarge(logits[0, 0].numpy(), 8, scale, height, width), expected, atol=1e-4)


def test_what_is_refused(copying: Predictor, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r'No exported model: .*none\.onnx'):
        load(tmp_path / 'none.onnx')
    good = write_model(tmp_path / 'foreign.onnx')
    with pytest.raises(ValueError, match='was not written by tools/export.py'):
        load(good)
    (tmp_path / 'cut.onnx').write_bytes(good.read_bytes()[:40])
    with pytest.raises(ValueError, match='it is damaged, or no ONNX file'):
        load(tmp_path / 'cut.onnx')
    newer = onnx.load(good)
    newer.opset_import[0].version = 99
    onnx.save(newer, tmp_path / 'newer.onnx')
    with pytest.raises(ValueError, match='newer.onnx cannot be loaded.*[Oo]pset'):
        load(tmp_path / 'newer.onnx')
    broken = write_model(tmp_path / 'broken.onnx', task='backbone', input='{"dtype"', mmevm_version='0')
    with pytest.raises(ValueError, match='its metadata are damaged'):
        load(broken)
    (tmp_path / 'text.png').write_text('no image')
    (tmp_path / 'empty').mkdir()
    cases = {
        'text.png cannot be read as an image': tmp_path / 'text.png',
        'No images': tmp_path / 'empty',
        'No image: ': tmp_path / 'none.png',
        r'must be uint8 .* got float64 \[4, 4, 3\]': np.full((4, 4, 3), np.nan),
        r'got uint8 \[4, 4, 4\]': np.zeros((4, 4, 4), np.uint8),
    }
    for message, image in cases.items():
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            copying(image)
