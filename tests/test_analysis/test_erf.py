"""`tools/analysis/erf.py`: known kernels, matrices made by hand, finite differences, figures, and the command."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor, nn

from mmevm.backbones import EfficientVMamba, Vim, VMamba
from tools.analysis.erf import (
    build_backbone,
    contributions,
    draw_field,
    draw_receptive_fields,
    main,
    read_images,
    receptive_field,
    render_images,
    square_sides,
)

ROOT = Path(__file__).resolve().parents[2]
BACKBONES = {
    'EfficientVMamba': lambda: EfficientVMamba({'dims': [8, 16], 'depths': [1, 1]}, out_indices=(0, 1)),
    'VMamba': lambda: VMamba({'dims': [8, 16], 'depths': [1, 1]}, out_indices=(0, 1)),
    'Vim': lambda: Vim({'dims': [16], 'depths': [2]}, img_size=48, out_type='featmap'),
}


def _conv(kernel: Tensor) -> nn.Conv2d:
    """A convolution of odd kernels that keeps the map's size. Args: kernel (Tensor[C, 2, h, w])."""
    C, _, h, w = kernel.shape
    conv = nn.Conv2d(2, C, (h, w), padding=(h // 2, w // 2), bias=False)
    conv.weight.data = kernel
    return conv


def test_contributions_of_a_convolution_are_its_kernel() -> None:
    kernel = torch.arange(1.0, 31.0).view(1, 2, 3, 5)
    expected = np.zeros((7, 9))
    expected[2:5, 2:7] = kernel.sum(dim=(0, 1)).numpy()
    np.testing.assert_array_equal(contributions(_conv(kernel), torch.ones(1, 2, 7, 9)), expected)


def test_contributions_take_positive_gradients_of_positive_outputs() -> None:
    # The second channel's output is negative, so that its kernel does not count.
    kernel = torch.tensor([[[[-1.0, 2.0, 4.0]], [[8.0, -1.0, 1.0]]], [[[-9.0, -9.0, -9.0]], [[-9.0, -9.0, 5.0]]]])
    expected = np.zeros((1, 3))
    expected[0] = [8, 2, 5]
    np.testing.assert_array_equal(contributions(_conv(kernel), torch.ones(1, 2, 1, 3)), expected)


@pytest.mark.parametrize('size', [(5, 7), (4, 6), (1, 1)], ids=str)
def test_contributions_to_the_identity_are_the_middle_pixel(size: tuple[int, int]) -> None:
    expected = np.zeros(size)
    expected[size[0] // 2, size[1] // 2] = 3
    np.testing.assert_array_equal(contributions(nn.Identity(), torch.ones(1, 3, *size)), expected)


def test_contributions_are_those_to_the_last_map() -> None:
    scores = contributions(lambda x: (x, nn.functional.avg_pool2d(x, 2)), torch.ones(1, 1, 4, 4))
    np.testing.assert_array_equal(scores, np.kron([[0, 0], [0, 1]], np.full((2, 2), 0.25)))


def test_contributions_refuse_what_is_no_map() -> None:
    with pytest.raises(ValueError, match=r'must give maps of shape \[1, C, H, W\], got \[1, 48\]'):
        contributions(nn.Flatten(), torch.ones(1, 3, 4, 4))


@pytest.mark.parametrize('name', BACKBONES)
def test_contributions_of_a_backbone_equal_finite_differences(name: str) -> None:
    model = BACKBONES[name]().double().eval()
    for parameter in model.parameters():  # far from the initial weights, with which little leaves a patch
        parameter.data += 0.2 * torch.randn_like(parameter)
    image, step = torch.rand(1, 3, 48, 48, dtype=torch.float64), 1e-5
    scores = contributions(model, image)

    def middle(x: Tensor) -> float:
        last = model(x)[-1]
        return last[0, :, last.shape[2] // 2, last.shape[3] // 2].clamp(min=0).sum().item()

    for row, col in ((24, 24), (3, 10), (40, 1)):
        expected = 0
        for color in range(3):
            shift = torch.zeros_like(image)
            shift[0, color, row, col] = step
            expected += max(0, (middle(image + shift) - middle(image - shift)) / (2 * step))
        assert scores[row, col] == pytest.approx(expected, rel=1e-4, abs=1e-9)


def test_receptive_field_is_the_mean_over_images() -> None:
    images = [torch.full((1, 1, 3, 3), value) for value in (1.0, 2.0, 6.0)]
    # The derivative of the square is twice the pixel's value.
    scores = receptive_field(lambda x: x**2, images)
    assert scores[1, 1] == 6 and scores.sum() == 6


def test_receptive_field_needs_an_image() -> None:
    with pytest.raises(ValueError, match='needs at least one image'):
        receptive_field(nn.Identity(), [])


@pytest.mark.parametrize('factor', [-1.0, float('nan')])
def test_receptive_field_refuses_a_gradient_that_is_nothing(factor: float) -> None:
    with pytest.raises(ValueError, match='must be finite and not zero everywhere'):
        receptive_field(lambda x: factor * x, [torch.ones(1, 1, 3, 3)])


def test_square_sides_of_a_matrix_made_by_hand() -> None:
    # 40 in the middle; the ring around it holds 30, the next one 28, and the outermost 2.
    scores = np.zeros((7, 7))
    scores[3, 3], scores[2, 4], scores[5, 1], scores[0, 6] = 40, 30, 28, 2
    assert square_sides(scores, [0.2, 0.4, 0.41, 0.7, 0.98, 0.99, 1.0]) == [1, 1, 3, 3, 5, 7, 7]


def test_square_sides_of_an_even_image_end_with_all_of_it() -> None:
    scores = np.zeros((4, 4))
    scores[0, 0] = scores[2, 2] = 1
    assert square_sides(scores, [0.5, 0.6]) == [1, 4]


def test_square_sides_of_an_even_spread() -> None:
    # 71² = 5041 < 5100.5 <= 73², 45² = 2025 < 2040.2 <= 47², and 99² = 9801 < 10098.99 <= 101².
    assert square_sides(np.ones((101, 101)), [0.5, 0.2, 0.99]) == [73, 47, 101]


def test_square_sides_refuse_an_oblong() -> None:
    with pytest.raises(ValueError, match=r'must have shape \[S, S\], got \[3, 4\]'):
        square_sides(np.ones((3, 4)))


def _save(path: Path, color: tuple[int, int, int]) -> None:
    path.parent.mkdir(exist_ok=True)
    Image.new('RGB', (10, 7), color).save(path)


def test_read_images_gives_the_first_ones_normalised_and_square(tmp_path: Path) -> None:
    _save(tmp_path / 'b.png', (0, 0, 0))
    _save(tmp_path / 'a' / 'z.PNG', (255, 116, 0))
    _save(tmp_path / 'c.png', (9, 9, 9))
    (tmp_path / 'a.txt').write_text('no image')
    first, second = read_images(tmp_path, 2, 32)
    assert first.shape == second.shape == (1, 3, 32, 32) and first.dtype == torch.float32
    # (255 - 123.675) / 58.395, (116 - 116.28) / 57.12, -103.53 / 57.375
    expected = torch.tensor([2.248909, -0.004902, -1.804444])
    torch.testing.assert_close(first[0].mean(dim=(1, 2)), expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(second[0, :, 3, 4].numpy(), [-2.117904, -2.035714, -1.804444], rtol=1e-5)


def test_read_images_needs_one(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match='must be a folder with images'):
        list(read_images(tmp_path / 'none', 2, 32))


def test_render_images_depends_on_the_seed_alone() -> None:
    few, more = list(render_images(1, 64, seed=3)), list(render_images(2, 64, seed=3))
    assert torch.equal(few[0], more[0]) and not torch.equal(more[0], more[1])
    assert not torch.equal(few[0], next(iter(render_images(1, 64, seed=4))))


def _spot(size: int, radius: int) -> np.ndarray:
    """Ones in a square in the middle, zeros around it."""
    scores = np.zeros((size, size))
    middle = slice(size // 2 - radius, size // 2 + radius + 1)
    scores[middle, middle] = 1
    return scores


def _pixels(path: str) -> np.ndarray:
    return np.array(Image.open(path).convert('RGB')).astype(int)


def test_draw_receptive_fields_leaves_room_for_absent_weights(tmp_path: Path) -> None:
    fields = {'a': (_spot(51, 5), _spot(51, 15)), 'b': (_spot(51, 5), None)}
    black = _pixels(draw_receptive_fields(fields, tmp_path / 'erf.png')).max(axis=-1) < 30
    # The colour bar, black at its end, is cut off.
    quarters = [
        part
        for half in np.array_split(black[:, : int(0.85 * black.shape[1])], 2, axis=0)
        for part in np.array_split(half, 2, axis=1)
    ]
    parts = [float(quarter.mean()) for quarter in quarters]
    assert parts[0] > parts[2] > 0.2 and parts[1] > 0.2 and parts[3] < 0.05


def test_draw_field_is_logarithmic_down_to_a_ten_thousandth() -> None:
    scores = 7 * np.array([[1, 0.1, 0.01], [1e-3, 1e-4, 1e-5], [0, 0, 0]])
    image = draw_field(Figure().subplots(), scores)
    np.testing.assert_allclose(image.norm(image.get_array()), [[1, 0.75, 0.5], [0.25, 0, 0], [0, 0, 0]], atol=1e-12)


@pytest.mark.parametrize(
    'size, expected',
    [
        (7, [(1.5, 3), (0.5, 5)]),  # around pixel 3, from 2 to 4 and from 1 to 5
        (4, [(0.5, 3), (-0.5, 4)]),  # around pixel 2, from 1 to 3; and the whole
    ],
)
def test_draw_field_outlines_the_squares(size: int, expected: list[tuple[float, int]]) -> None:
    scores = np.zeros((size, size))
    scores[size // 2 - 1, size // 2], scores[size // 2, size // 2 - 2] = 6, 4
    axes = Figure().subplots()
    draw_field(axes, scores)
    half, most = axes.patches
    assert [(patch.get_x(), patch.get_width()) for patch in (half, most)] == expected
    assert all(patch.get_x() == patch.get_y() and patch.get_width() == patch.get_height() for patch in axes.patches)
    shares = [round(100 * side / size) for _, side in expected]
    assert axes.get_xlabel() == f'half in {shares[0]} %, 99 % in {shares[1]} %'


def _run(tmp_path: Path, *arguments: str) -> tuple[int, dict[str, np.ndarray]]:
    files = ['--out', str(tmp_path / 'erf.png'), '--scores', str(tmp_path / 'erf.npz')]
    status = main([*arguments, '--size', '64', '--count', '2', *files])
    return status, dict(np.load(tmp_path / 'erf.npz')) if status == 0 else {}


def test_erf_measures_random_and_trained_weights(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    torch.manual_seed(5)
    other = EfficientVMamba('tiny').eval()
    torch.save({'state_dict': other.state_dict()}, tmp_path / 'other.pth')
    torch.manual_seed(0)
    models = {'random': EfficientVMamba('tiny').eval(), 'trained': other}
    status, scores = _run(tmp_path, 'EfficientVMamba:tiny', '--weights', str(tmp_path / 'other.pth'))
    assert status == 0
    out = capsys.readouterr().out
    for kind, model in models.items():
        expected = receptive_field(model, render_images(2, 64))
        np.testing.assert_allclose(scores[f'EfficientVMamba tiny {kind}'], expected, rtol=1e-4, atol=1e-9)
        sides = [f'{100 * side / 64:.1f}' for side in square_sides(expected)]
        assert ['EfficientVMamba', 'tiny', kind, *sides] in [line.split() for line in out.splitlines()]
    assert out.splitlines()[-1] == str(tmp_path / 'erf.png')


def test_erf_gives_the_same_for_the_same_seed(tmp_path: Path) -> None:
    runs = [_run(tmp_path, 'Vim:tiny', '--seed', seed)[1]['Vim tiny random'] for seed in ('1', '1', '2')]
    np.testing.assert_array_equal(runs[0], runs[1])
    assert np.abs(runs[0] - runs[2]).max() > 0.01 * runs[0].max()


@pytest.mark.openmmlab
@pytest.mark.parametrize(
    'config, shape',
    [
        ('classifier_vim_t', (192, 4, 4)),
        ('retinanet_evm_t', (384, 2, 2)),
        ('classifier_vmamba_t', (768, 2, 2)),
    ],
)
def test_build_backbone_of_a_config_gives_maps(config: str, shape: tuple[int, int, int]) -> None:
    maps = build_backbone(str(ROOT / f'configs/{config}.py'), 64, 0)(torch.zeros(1, 3, 64, 64))
    assert maps[-1].shape[1:] == shape


@pytest.mark.parametrize(
    'arguments, message',
    [
        (['ResNet:50'], 'is no model: expected a config file, or one of EfficientVMamba, VMamba, Vim'),
        (['Vim:huge'], "Vim:huge: `arch` must be one of 'tiny', 'small' or a dict, got 'huge'"),
        (['no/such.py'], 'Config file not found'),
        (['Vim:tiny', 'Vim:tiny'], 'each model must be named once'),
        (['Vim:tiny', '--weights', 'none.pth'], 'Checkpoint not found'),
        (['Vim:tiny', '--weights', '-', '-'], 'got 2 for 1 models'),
        (['Vim:tiny', '--images', 'no/such'], 'must be a folder with images'),
        (['Vim:tiny', '--count', '0'], '--count must be at least 1'),
        (['Vim:tiny', '--size', '63'], '--size must be at least 64'),
        (['Vim:tiny', '--seed', '-1'], '--seed must be at least 0'),
        (['Vim:tiny', '--out', 'erf.jpg'], '--out must end with .png, got erf.jpg'),
        (['Vim:tiny', '--out', 'no/such/erf.png'], 'there is no such folder'),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else '',
)
def test_erf_says_what_does_not_fit(arguments: list[str], message: str, capsys: pytest.CaptureFixture) -> None:
    assert main(arguments) == 2
    assert message in capsys.readouterr().err


@pytest.mark.openmmlab
def test_erf_takes_no_weights_for_other_backbones(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    backbone = "dict(type='mmdet.ResNet', depth=18)"
    (tmp_path / 'resnet.py').write_text(
        f"default_scope = 'mmpretrain'\nmodel = dict(type='ImageClassifier', backbone={backbone})\n"
    )
    (tmp_path / 'resnet.pth').touch()
    assert main([str(tmp_path / 'resnet.py'), '--weights', str(tmp_path / 'resnet.pth')]) == 2
    assert 'resnet.py: expected a backbone of mmevm or a model with one' in capsys.readouterr().err


def test_script_runs_from_any_folder(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, ROOT / 'tools/analysis/erf.py', '--help'], cwd=tmp_path, capture_output=True)
    assert done.returncode == 0 and b'--images DIR' in done.stdout
