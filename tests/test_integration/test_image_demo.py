"""demo/image_demo.py: a picture in, an annotated picture out, for each task."""

import runpy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytestmark = pytest.mark.openmmlab

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope='module')
def demo() -> Callable[..., int]:
    """The demo's entry point; arguments become strings."""
    main = runpy.run_path(str(ROOT / 'demo/image_demo.py'))['main']
    return lambda *arguments: main([str(argument) for argument in arguments])


def changed_pixels(before: Path, after: Path) -> float:
    """The share of pixels that are drawn over."""
    pictures = [np.asarray(Image.open(path).convert('RGB')) for path in (before, after)]
    assert pictures[0].shape == pictures[1].shape
    return float((pictures[0] != pictures[1]).any(-1).mean())


def test_demo_writes_the_class_into_the_picture(
    demo: Callable[..., int], zoo: Path, picture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:  # fmt: skip
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
    assert '% of the picture' in capsys.readouterr().out
    assert changed_pixels(picture, out) > 0.9


@pytest.mark.parametrize('model, options, sentence', [
    ('retinanet_evm_t', [], 'No weights of retinanet_evm_t were released. Name the checkpoint of a training'),
    ('retinanet_evm_x', [], '--model retinanet_evm_x is neither a config file nor one of classifier_evm_t, '),
    ('retinanet_evm_t', ['--weights', 'nowhere.pth'], 'Checkpoint not found: '),
])  # fmt: skip
def test_demo_says_what_is_missing(
    demo: Callable[..., int], model: str, options: list[str], sentence: str, picture: Path,
    capsys: pytest.CaptureFixture,
) -> None:  # fmt: skip
    assert demo(picture, '--model', model, *options) == 2
    assert sentence in capsys.readouterr().err


def test_demo_names_a_picture_that_it_cannot_read(
    demo: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / 'text.png').write_text('no picture')
    assert demo(tmp_path / 'text.png', '--model', 'classifier_evm_t') == 2
    assert f'No picture can be read from {tmp_path / "text.png"}' in capsys.readouterr().err
