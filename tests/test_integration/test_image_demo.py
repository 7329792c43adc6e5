"""demo/image_demo.py: images in, annotated images out, for each task."""

import dataclasses
import runpy
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

pytestmark = pytest.mark.openmmlab

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope='module')
def script() -> dict[str, Any]:
    """What the demo defines."""
    # The functions of a module see changes of it, those that `run_path` leaves do not see changes of what it returns.
    return runpy.run_path(str(ROOT / 'demo/image_demo.py'))['main'].__globals__


@pytest.fixture
def demo(script: dict[str, Any]) -> Callable[..., int]:
    """The demo's entry point; arguments become strings."""
    return lambda *arguments: script['main']([str(argument) for argument in arguments])


def changed_pixels(before: Path, after: Path) -> float:
    """The share of pixels that are drawn over."""
    pictures = [np.asarray(Image.open(path).convert('RGB')) for path in (before, after)]
    assert pictures[0].shape == pictures[1].shape
    return float((pictures[0] != pictures[1]).any(-1).mean())


def test_demo_writes_the_class_into_the_picture(
    demo: Callable[..., int],
    zoo: Path,
    picture: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert demo(picture, '--model', 'classifier_evm_t', '--device', 'cpu') == 0
    assert 'drawn: outputs/noise_classifier_evm_t.png' in capsys.readouterr().out
    assert 0.01 < changed_pixels(picture, tmp_path / 'outputs/noise_classifier_evm_t.png') < 0.9


def test_demo_draws_boxes_and_masks(
    demo: Callable[..., int], detector: Path, picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    model = ['--model', 'mask_rcnn_evm_t_1x', '--weights', detector, '--device', 'cpu']
    assert demo(picture, *model, '--out', tmp_path / 'all.png', '--score', 0.01) == 0
    assert int(capsys.readouterr().out.split(' objects of score 0.01')[0].split()[-1]) > 0
    assert changed_pixels(picture, tmp_path / 'all.png') > 0.05


def test_demo_draws_no_box_below_the_score(
    demo: Callable[..., int], detector: Path, picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    model = ['--model', 'mask_rcnn_evm_t_1x', '--weights', detector, '--device', 'cpu']
    assert demo(picture, *model, '--out', tmp_path / 'none.png', '--score', 1.1) == 0
    assert '0 objects of score 1.1 or more' in capsys.readouterr().out
    assert changed_pixels(picture, tmp_path / 'none.png') == 0


def test_demo_colours_every_pixel_by_its_class(
    demo: Callable[..., int], segmentor: Path, picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out = tmp_path / 'new' / 'drawn.png'
    assert demo(picture, '--model', 'upernet_evm_t', '--weights', segmentor, '--out', out, '--device', 'cpu') == 0
    assert '% of the image' in capsys.readouterr().out
    assert changed_pixels(picture, out) > 0.9


@pytest.mark.parametrize(
    'model, options, sentence',
    [
        ('retinanet_evm_t', [], 'No weights of retinanet_evm_t were released. Name the checkpoint of a training'),
        ('retinanet_evm_x', [], '--model retinanet_evm_x is neither a config file nor one of classifier_evm_t, '),
        ('retinanet_evm_t', ['--weights', 'nowhere.pth'], 'Checkpoint not found: '),
    ],
)
def test_demo_says_what_is_missing(
    demo: Callable[..., int],
    model: str,
    options: list[str],
    sentence: str,
    picture: Path,
    capsys: pytest.CaptureFixture,
) -> None:
    assert demo(picture, '--model', model, *options) == 2
    assert sentence in capsys.readouterr().err


def test_demo_names_an_image_that_it_cannot_read(
    demo: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / 'text.png').write_text('no image')
    assert demo(tmp_path / 'text.png', '--model', 'classifier_evm_t') == 2
    assert f'No image can be read from {tmp_path / "text.png"}' in capsys.readouterr().err


@pytest.mark.parametrize(
    'options, sentence',
    [
        (['--out', __file__ + '/below/x.png'], 'test_image_demo.py/below cannot be written to: Not a directory'),
        (['--out', 'x.doc'], '--out must end with .png, .jpg or the like'),
        (['--device', 'cuda:99'], '--device cuda:99 cannot be used: '),
        (['--device', 'gpu'], '--device gpu cannot be used: '),
    ],
)
def test_demo_refuses_what_it_could_not_do_before_a_model_is_built(
    demo: Callable[..., int],
    script: dict[str, Any],
    options: list[str],
    sentence: str,
    zoo: Path,
    picture: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    never = dataclasses.replace(script['TASKS']['mmpretrain'], load=lambda *_: pytest.fail('built'))
    monkeypatch.setitem(script['TASKS'], 'mmpretrain', never)
    assert demo(picture, '--model', 'classifier_evm_t', *options) == 2
    assert sentence in capsys.readouterr().err


def test_demo_refuses_models_of_other_channels(
    demo: Callable[..., int], picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    config = tmp_path / 'four_bands.py'
    config.write_text("default_scope = 'mmdet'\nmodel = dict(backbone=dict(type='EfficientVMamba', in_channels=4))\n")
    assert demo(picture, '--model', config, '--weights', picture) == 2
    assert 'four_bands.py is for images of 4 channels' in capsys.readouterr().err


def test_demo_refuses_a_checkpoint_for_a_config(
    demo: Callable[..., int], upstream_file: Path, picture: Path, capsys: pytest.CaptureFixture
) -> None:
    assert demo(picture, '--model', upstream_file, '--weights', upstream_file) == 2
    assert 'cannot be read: ' in capsys.readouterr().err


def test_demo_draws_a_folder_and_an_address_and_names_what_it_leaves_out(
    demo: Callable[..., int],
    zoo: Path,
    served: tuple[str, Path],
    picture: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('NO_PROXY', '127.0.0.1')
    for name in ('in/a.png', 'in/a.jpg', 'in/below/Straße 1.png'):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.open(picture).save(tmp_path / name)
    (tmp_path / 'in/cut.png').write_bytes(picture.read_bytes()[:900])
    shutil.copy(picture, served[1] / 'of the street.png')
    address = f'{served[0]}/of the street.png'
    assert demo('in', address, '--model', 'classifier_evm_t', '--device', 'cpu', '--out', 'drawn') == 2
    names = ['a.jpg', 'a.png', 'below/Straße 1', 'of_the_street']
    drawings = [tmp_path / f'drawn/{name}_classifier_evm_t.png' for name in names]
    assert sorted(path for path in (tmp_path / 'drawn').rglob('*') if path.is_file()) == sorted(drawings)
    for drawing in drawings[1:]:
        assert 0.01 < changed_pixels(picture, drawing) < 0.9
    shown = capsys.readouterr()
    assert 'left out: in/cut.png is damaged or cut off: ' in shown.err
    assert shown.err.strip().endswith('1 of 5 images were left out') and shown.out.count('drawn: ') == 4


@pytest.mark.parametrize('library, checkpoint', [('mmdet', 'detector'), ('mmseg', 'segmentor')])
def test_demo_draws_on_a_smaller_copy_what_the_model_finds_in_the_whole_image(
    library: str,
    checkpoint: str,
    demo: Callable[..., int],
    script: dict[str, Any],
    picture: Path,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    weights, models = request.getfixturevalue(checkpoint), []
    task = script['TASKS'][library]

    def load(*arguments: Any) -> Any:
        models.append(task.load(*arguments))
        return models[0]

    monkeypatch.setitem(script['TASKS'], library, dataclasses.replace(task, load=load))
    monkeypatch.setitem(script, 'DRAWN_PIXELS', 36 * 48)
    out = ['--out', tmp_path / 'drawn.png', '--device', 'cpu', '--score', 0]
    assert demo(picture, '--model', weights.stem, '--weights', weights, *out) == 0
    assert f'{picture} has 96 × 72 pixels; the drawing has 48 × 36' in capsys.readouterr().out
    assert Image.open(tmp_path / 'drawn.png').size == (48, 36)

    image = np.ascontiguousarray(np.asarray(Image.open(picture))[..., ::-1])
    whole, half = (script['predict'](models[0], image, canvas) for canvas in (image, image[::2, ::2]))
    if library == 'mmdet':
        assert len(whole.pred_instances) > 0
        assert (whole.pred_instances.bboxes / 2 - half.pred_instances.bboxes).abs().max() < 1e-3
        assert half.pred_instances.masks.shape[1:] == (36, 48)
    else:
        assert np.array_equal(whole.pred_sem_seg.data[0].numpy(), models[0](str(picture))['predictions'])
        # At the size at which the network sees the image its scores are as it gives them.
        scores = script['predict'](models[0], image, np.empty((*whole.img_shape, 3))).seg_logits.data
        expected = F.interpolate(scores[None], (36, 48), mode='bilinear')[0]
        assert (half.seg_logits.data - expected).abs().max() < 1e-5
        assert not torch.equal(whole.pred_sem_seg.data[:, ::2, ::2], half.pred_sem_seg.data)


def test_demo_says_what_a_model_cannot_process(
    demo: Callable[..., int],
    segmentor: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    monkeypatch.undo()  # The pipeline's own size, at which the model runs out of pixels
    Image.new('RGB', (900, 1)).save(tmp_path / 'line.png')
    model = ['--model', 'upernet_evm_t', '--weights', segmentor, '--device', 'cpu', '--out', tmp_path / 'out.png']
    assert demo(tmp_path / 'line.png', *model) == 2
    assert 'line.png (900 × 1 pixels) cannot be processed by this model: RuntimeError: ' in capsys.readouterr().err
    assert not (tmp_path / 'out.png').exists()
