"""`mmevm.analysis.erf`: known kernels, hand-made matrices, and a backbone against finite differences."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mmevm.analysis.erf import contributions, receptive_field, square_sides
from mmevm.backbones import EfficientVMamba, Vim, VMamba

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
    picture, step = torch.rand(1, 3, 48, 48, dtype=torch.float64), 1e-5
    scores = contributions(model, picture)

    def middle(x: Tensor) -> float:
        last = model(x)[-1]
        return last[0, :, last.shape[2] // 2, last.shape[3] // 2].clamp(min=0).sum().item()

    for row, col in ((24, 24), (3, 10), (40, 1)):
        expected = 0
        for color in range(3):
            shift = torch.zeros_like(picture)
            shift[0, color, row, col] = step
            expected += max(0, (middle(picture + shift) - middle(picture - shift)) / (2 * step))
        assert scores[row, col] == pytest.approx(expected, rel=1e-4, abs=1e-9)


def test_receptive_field_is_the_mean_over_pictures() -> None:
    pictures = [torch.full((1, 1, 3, 3), value) for value in (1.0, 2.0, 6.0)]
    # The derivative of the square is twice the pixel's value.
    scores = receptive_field(lambda x: x**2, pictures)
    assert scores[1, 1] == 6 and scores.sum() == 6


def test_receptive_field_needs_a_picture() -> None:
    with pytest.raises(ValueError, match='needs at least one picture'):
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


def test_square_sides_of_an_even_picture_end_with_the_whole_of_it() -> None:
    scores = np.zeros((4, 4))
    scores[0, 0] = scores[2, 2] = 1
    assert square_sides(scores, [0.5, 0.6]) == [1, 4]


def test_square_sides_of_an_even_spread() -> None:
    # 71² = 5041 < 5100.5 <= 73², 45² = 2025 < 2040.2 <= 47², and 99² = 9801 < 10098.99 <= 101².
    assert square_sides(np.ones((101, 101)), [0.5, 0.2, 0.99]) == [73, 47, 101]


def test_square_sides_refuse_an_oblong() -> None:
    with pytest.raises(ValueError, match=r'must have shape \[S, S\], got \[3, 4\]'):
        square_sides(np.ones((3, 4)))
