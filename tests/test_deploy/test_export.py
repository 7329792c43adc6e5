"""``tools/export.py`` in process: one file for each task, its results, its metadata, and what it refuses."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import onnx_ir
import onnxruntime
import pytest
import torch
from mmengine.dataset import Compose, pseudo_collate

from mmevm.checkpoint import load_file
from mmevm.deploy import load
from mmevm.deploy.export import main
from mmevm.deploy.quantization import calibration_images, quantize
from mmevm.engine.config import read_config
from mmevm.engine.tasks import build_model
from mmevm.errors import UsageError
from tests.test_deploy import toy

pytestmark = pytest.mark.openmmlab
CONFIGS: dict[str, Callable[[], dict[str, Any]]] = {
    'classifier': toy.classifier,
    'retinanet': toy.retinanet,
    'mask_rcnn': toy.mask_rcnn,
    'segmentor': toy.segmentor,
}
GROUPS = dict(type='GN', num_groups=4)
Exported = dict[str, tuple[Path, Path, Path]]


@pytest.fixture(scope='module')
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, Path, Path]]:
    """Exports a config of :mod:`.toy` once; gives the config, the checkpoint and the ONNX file."""
    files: Exported = {}

    def get(name: str) -> tuple[Path, Path, Path]:
        if name not in files:
            folder = tmp_path_factory.mktemp(name)
            config, checkpoint = toy.write(CONFIGS[name](), folder)
            out = folder / 'model.onnx'
            options = ['--with-preprocessing'] if name == 'classifier' else []
            assert main([str(config), str(checkpoint), '--out', str(out), *options]) == 0
            assert sorted(path.name for path in folder.iterdir()) == ['model.onnx', 'toy.pth', 'toy.py']
            files[name] = config, checkpoint, out
        return files[name]

    return get


@pytest.fixture(scope='module')
def photograph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image with edges, each pixel of which is four times there: at the configs' scale all resizing is exact."""
    path = tmp_path_factory.mktemp('images') / 'photograph.png'
    pixels = np.random.default_rng(0).integers(0, 256, (9, 13, 3), np.uint8)
    pixels = cv2.resize(pixels, (150, 95), interpolation=cv2.INTER_CUBIC)
    cv2.imwrite(str(path), pixels.repeat(2, axis=0).repeat(2, axis=1))
    return path


def library_prediction(config: Path, checkpoint: Path, image: Path) -> Any:
    """What the library's own pipeline and model find in an image, in pixels of the file."""
    cfg = read_config(config)
    model = build_model(cfg).eval()
    model.load_state_dict(load_file(checkpoint)['state_dict'])
    pipeline = Compose(cfg.test_dataloader.dataset.pipeline)
    with torch.no_grad():
        return model.test_step(pseudo_collate([pipeline(dict(img_path=str(image), img_id=0))]))[0]


def test_classifier_on_a_file(exported: Callable, photograph: Path) -> None:
    config, checkpoint, path = exported('classifier')
    prediction = load(path)(photograph)
    expected = library_prediction(config, checkpoint, photograph)
    np.testing.assert_allclose(prediction.scores, expected.pred_score, atol=1e-4)
    assert prediction.labels[0] == expected.pred_label.item()
    assert prediction.name(0) == 'cat'


@pytest.mark.parametrize('name', ['retinanet', 'mask_rcnn'])
def test_objects_in_a_file(exported: Callable, photograph: Path, name: str) -> None:
    config, checkpoint, path = exported(name)
    prediction = load(path)(photograph)
    expected = library_prediction(config, checkpoint, photograph).pred_instances
    assert len(expected) == len(prediction.boxes) > 3
    # Scores that are almost equal may change places.
    distance = np.abs(prediction.boxes[:, None] - expected.bboxes.numpy()).max(axis=2)
    distance += 1e3 * (prediction.labels[:, None] != expected.labels.numpy())
    nearest = distance.argmin(axis=0)
    assert sorted(nearest.tolist()) == list(range(len(expected)))
    assert distance.min(axis=0).max() < 0.1
    np.testing.assert_allclose(prediction.scores[nearest], expected.scores, atol=1e-3)
    if name == 'mask_rcnn':
        masks = prediction.masks[nearest]
        assert masks.shape == tuple(expected.masks.shape)
        assert (masks != expected.masks.numpy()).mean() < 0.01
        assert 0.01 < masks.mean() < 0.99


def test_classes_of_pixels_in_a_file(exported: Callable, photograph: Path) -> None:
    config, checkpoint, path = exported('segmentor')
    prediction = load(path)(photograph)
    expected = library_prediction(config, checkpoint, photograph).pred_sem_seg.data[0].numpy()
    assert prediction.classes.shape == expected.shape == (190, 300)
    assert len(np.unique(expected)) > 1
    # mmseg enlarges the scores and then takes the best, the file the other way round.
    assert (prediction.classes != expected).mean() < 0.05


def test_metadata(exported: Callable) -> None:
    _, _, path = exported('classifier')
    session = onnxruntime.InferenceSession(path)
    metadata = session.get_modelmeta().custom_metadata_map
    assert metadata['task'] == 'classification'
    assert json.loads(metadata['classes']) == ['cat', 'dog', 'eel']
    assert json.loads(metadata['input'])['dtype'] == 'uint8'
    assert len(metadata['checkpoint_sha256']) == 64
    assert metadata['mmevm_version']
    (images,) = session.get_inputs()
    assert (images.name, images.type, images.shape) == ('images', 'tensor(uint8)', ['batch', 3, 'height', 'width'])
    assert [output.name for output in session.get_outputs()] == ['scores']


@pytest.mark.parametrize(
    ('head', 'options'),
    [
        ('FCOSHead', dict(norm_cfg=GROUPS, strides=[8, 16, 32], regress_ranges=((-1, 32), (32, 64), (64, 1e8)))),
        ('ATSSHead', dict(norm_cfg=GROUPS, anchor_generator=dict(toy.ANCHORS, ratios=[1.0]), bbox_coder=toy.CODER)),
        (
            'RTMDetSepBNHead',
            dict(
                anchor_generator=dict(type='MlvlPointGenerator', offset=0, strides=[8, 16, 32]),
                bbox_coder=dict(type='DistancePointBBoxCoder'),
                share_conv=True,
                pred_kernel_size=1,
                with_objectness=False,
                norm_cfg=dict(type='BN'),
                act_cfg=dict(type='SiLU'),
            ),
        ),
        ('GFLHead', dict(norm_cfg=GROUPS, anchor_generator=dict(toy.ANCHORS, ratios=[1.0]), reg_max=4)),
    ],
)
def test_other_dense_heads_agree_with_mmdet(head: str, options: dict) -> None:
    from mmengine.config import Config

    from mmevm.deploy.two_stage import exported_detector

    model = build_model(Config(toy.dense(head, **options))).eval()
    for key, parameter in model.named_parameters():
        if 'head' in key and parameter.dim() > 1:
            torch.nn.init.kaiming_normal_(parameter)
        elif key.endswith('cls.bias'):
            torch.nn.init.uniform_(parameter, -1, 1)
    module = exported_detector(model).eval()
    images = torch.randn(2, 3, 72, 101)
    with torch.no_grad():
        got = module(images)
        differences = module.compare(got, images)
    assert (got[2] >= 0).sum() > 10
    assert all(difference.value <= difference.allowed for difference in differences), differences


def detectors() -> dict[str, tuple[dict[str, Any], str]]:
    """Configs of detectors that derive from those that are exported, and why they are not."""
    panoptic, proposals, fast = toy.mask_rcnn(), toy.mask_rcnn(), toy.mask_rcnn()
    panoptic['model'] |= dict(
        type='PanopticFPN',
        semantic_head=dict(
            type='PanopticFPNHead',
            num_things_classes=3,
            num_stuff_classes=2,
            in_channels=16,
            inner_channels=32,
            start_level=0,
            end_level=3,
        ),
        panoptic_fusion_head=dict(type='HeuristicFusionHead', num_things_classes=3, num_stuff_classes=2),
    )
    panoptic['model']['test_cfg']['panoptic'] = dict()
    del proposals['model']['roi_head'], fast['model']['rpn_head']
    proposals['model']['type'], fast['model']['type'] = 'RPN', 'FastRCNN'
    return {
        'PanopticFPN': (panoptic, 'it predicts in a way of its own'),
        'RPN': (proposals, 'it proposes regions without classes'),
        'FastRCNN': (fast, 'it has no RPN'),
    }


@pytest.mark.parametrize('name', detectors())
def test_a_detector_that_predicts_something_else_is_refused(name: str) -> None:
    from mmengine.config import Config

    from mmevm.deploy.two_stage import exported_detector

    config, reason = detectors()[name]
    with pytest.raises(UsageError, match=f'cannot be exported: {reason}'):
        exported_detector(build_model(Config(config)))


@pytest.mark.parametrize('name', ['GLIP', 'Mask2Former', 'MaskFormer', 'PanopticFPN', 'TridentFasterRCNN'])
def test_a_class_with_a_prediction_of_its_own_is_refused(name: str) -> None:
    import mmdet.models.detectors

    from mmevm.deploy.two_stage import exported_detector

    kind = getattr(mmdet.models.detectors, name)
    with pytest.raises(UsageError, match=f'{name} cannot be exported: it predicts in a way of its own'):
        exported_detector(kind.__new__(kind))


def test_an_estimator_of_depth_is_no_segmentor() -> None:
    from mmseg.models.segmentors import DepthEstimator

    from mmevm.deploy.models import ExportedSegmentor

    with pytest.raises(UsageError, match='got DepthEstimator'):
        ExportedSegmentor(DepthEstimator.__new__(DepthEstimator), logits=False)


@pytest.mark.parametrize('most', [60, -1])
@pytest.mark.parametrize('name', ['retinanet', 'mask_rcnn'])
def test_detectors_create_nothing_on_another_device(name: str, most: int) -> None:
    from mmengine.config import Config

    from mmevm.deploy.two_stage import exported_detector

    config = CONFIGS[name]()
    config['model']['test_cfg'].get('rpn', config['model']['test_cfg'])['nms_pre'] = most
    module = exported_detector(toy.spread(build_model(Config(config)))).eval()
    images = torch.randn(1, 3, 64, 96)
    with torch.no_grad(), torch.device('meta'):  # of what names no device
        results = module(images)
    assert {result.device.type for result in results} == {'cpu'}
    assert (results[2] >= 0).any()


@pytest.fixture(scope='module')
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of images with edges."""
    folder = tmp_path_factory.mktemp('images')
    values = np.random.default_rng(0)
    for i in range(6):
        pixels = cv2.resize(values.integers(0, 256, (9, 13, 3), np.uint8), (150, 95), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(folder / f'{i}.png'), pixels)
    return folder


@pytest.mark.parametrize('name', ['classifier', 'retinanet', 'segmentor'])
def test_an_8_bit_file_agrees_almost(exported: Callable, photographs: Path, tmp_path: Path, name: str) -> None:
    _, _, path = exported(name)
    rounded = tmp_path / 'rounded.onnx'
    share = quantize(path, rounded, calibration_images(photographs))
    assert 0.6 < share <= 1
    graph = onnx.load(rounded).graph
    kinds = [node.op_type for node in graph.node]
    assert 'QuantizeLinear' in kinds
    assert kinds.count('VisualScan') == [node.op_type for node in onnx.load(path).graph.node].count('VisualScan')
    # The last products are exact: an initializer of float32 is their weight.
    weights = {tensor.name for tensor in graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT}
    assert any(node.op_type in ('Conv', 'Gemm', 'MatMul') and node.input[1] in weights for node in graph.node)

    image = photographs / '0.png'
    exact, found = load(path)(image), load(rounded)(image)
    assert json.loads(load(rounded).metadata['quantization']) == {'bits': 8, 'images': 6, 'agreement': share}
    assert found.names == exact.names == load(path, kernels=False)(image).names
    if name == 'classifier':
        assert 0 < np.abs(found.scores - exact.scores).max() < 0.05


def test_the_command_writes_it(
    exported: Callable,
    photographs: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config, checkpoint, path = exported('classifier')
    monkeypatch.setattr('mmevm.deploy.export.to_onnx', lambda *args, **options: onnx_ir.load(path))
    out = tmp_path / 'model.onnx'
    arguments = [str(config), str(checkpoint), '--out', str(out), '--with-preprocessing', '--inline']
    assert main([*arguments, '--int8', str(photographs)]) == 0
    assert 'the 8-bit file agrees by' in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == [out]
    model = onnx.load(out)
    assert not model.functions and {node.domain for node in model.graph.node} <= {'', 'com.microsoft'}
    assert load(out)(photographs / '0.png').scores.sum() == pytest.approx(1, abs=1e-3)


def test_a_program_of_torch_export(exported: Callable, tmp_path: Path) -> None:
    config, checkpoint, path = exported('classifier')
    out = tmp_path / 'model.pt2'
    assert main([str(config), str(checkpoint), '--out', str(out), '--format', 'pt2', '--with-preprocessing']) == 0
    stored = {'mmevm.json': ''}
    model = torch.export.load(out, extra_files=stored).module()
    assert json.loads(json.loads(stored['mmevm.json'])['classes']) == ['cat', 'dog', 'eel']
    images = torch.randint(0, 256, (3, 3, 77, 90), dtype=torch.uint8)
    expected = onnxruntime.InferenceSession(path).run(None, {'images': images.numpy()})[0]
    np.testing.assert_allclose(model(images)[0].detach(), expected, atol=1e-5)


def test_weights_of_a_run_that_diverged_are_refused(
    exported: Callable, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    config, checkpoint, _ = exported('classifier')
    content = load_file(checkpoint)
    content['state_dict']['head.fc.bias'][1] = torch.nan
    torch.save(content, tmp_path / 'diverged.pth')
    assert main([str(config), str(tmp_path / 'diverged.pth'), '--out', str(tmp_path / 'model.onnx')]) == 2
    assert 'head.fc.bias' in (error := capsys.readouterr().err) and 'NaN or infinite' in error
    assert [path.name for path in tmp_path.iterdir()] == ['diverged.pth']


def test_a_file_that_does_not_agree_is_not_left(
    exported: Callable, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, checkpoint, path = exported('classifier')
    monkeypatch.setattr('mmevm.deploy.export.to_onnx', lambda *args, **options: onnx_ir.load(path))
    content = load_file(checkpoint)
    content['state_dict']['head.fc.bias'] += torch.tensor([0.0, 0.0, 0.01])
    torch.save(content, tmp_path / 'other.pth')
    out = tmp_path / 'model.onnx'
    out.write_bytes(b'an older file')
    arguments = [str(config), str(tmp_path / 'other.pth'), '--out', str(out), '--with-preprocessing']
    assert main(arguments) == 2
    assert 'does not agree with PyTorch' in capsys.readouterr().err
    assert out.read_bytes() == b'an older file'
    assert len(list(tmp_path.iterdir())) == 2
    assert main([*arguments, '--no-verify']) == 0
    assert out.read_bytes() != b'an older file'


def test_a_head_that_cannot_predict_is_refused() -> None:
    from mmdet.models.dense_heads import SSDHead

    from mmevm.deploy.detectors import check_dense_head

    with pytest.raises(UsageError, match=r"SSDHead cannot be exported: .* `type='mmevm.SSDHead'` can"):
        check_dense_head(SSDHead.__new__(SSDHead, 8))


def test_one_map_has_the_threshold_of_mmseg() -> None:
    from mmengine.config import Config

    from mmevm.deploy.export import wrap

    cfg = toy.segmentor()
    cfg['model']['decode_head'] |= dict(num_classes=2, out_channels=1, threshold=0.3)
    model = toy.spread(build_model(Config(cfg)))
    images = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        classes, logits = wrap(cfg, model).eval()(images)
        expected = torch.cat([sample.pred_sem_seg.data for sample in model.predict(images)])
    assert ((logits.sigmoid() > 0.3) & (logits < 0)).any()
    assert classes.equal(expected.int())
    # What a predictor does with a file that has logits alone.
    assert (logits[:, 0] > wrap(cfg, model, logits=True).options['threshold']).int().equal(classes)


def test_sliding_windows_are_said_not_to_be_in_the_file(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = toy.segmentor()
    cfg['model']['test_cfg'] = {'mode': 'slide', 'crop_size': (64, 64), 'stride': (32, 32)}
    config, checkpoint = toy.write(cfg, tmp_path)
    written: list[dict] = []
    monkeypatch.setattr('mmevm.deploy.export._write', lambda model, metadata, plan: written.append(metadata))
    assert main([str(config), str(checkpoint), '--out', str(tmp_path / 'model.onnx')]) == 0
    assert written[0]['options'] == {'window': {'size': [64, 64], 'stride': [32, 32]}}
    assert 'sliding windows; the file takes each image as a whole' in capsys.readouterr().out


def test_what_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    config, checkpoint = toy.write(toy.segmentor(), tmp_path)
    detector, _ = toy.write(
        toy.dense(
            'FoveaHead', base_edge_list=(16, 32, 64), scale_ranges=((8, 32), (16, 64), (32, 128)), strides=(8, 16, 32)
        ),
        tmp_path,
        'detector',
    )
    out = str(tmp_path / 'model.onnx')
    cases = {
        '.onnx': [config, checkpoint, '--out', str(tmp_path / 'model.pt')],
        '.pt2': [config, checkpoint, '--out', out, '--format', 'pt2'],
        'cannot be written': [config, checkpoint, '--out', str(tmp_path / 'none' / 'model.onnx')],
        'Checkpoint not found': [config, 'none.pth', '--out', out],
        'does not fit the model': [config, tmp_path / 'detector.pth', '--out', out],
        'Config file not found': ['none.py', '--out', out],
        'predicts boxes in a way of its own': [detector, tmp_path / 'detector.pth', '--out', out],
        '--logits is for': [config, checkpoint, '--out', out, '--backbone', '--logits'],
    }
    for message, arguments in cases.items():
        assert main(list(map(str, arguments))) == 2, message
        error = capsys.readouterr().err
        assert message in error
    assert not (tmp_path / 'model.onnx').exists()
