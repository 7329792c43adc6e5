import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mmevm.layers.vim import insert_middle, resize_position, split_middle


def _tokens(image: Tensor, token: Tensor) -> Tensor:
    """Cells in row-major order with the token after half of them. Args: image (Tensor[C, H, W]), token (Tensor[C])."""
    H, W = image.shape[1:]
    cells = [image[:, i, j] for i in range(H) for j in range(W)]
    cells.insert(H * W // 2, token)
    return torch.stack(cells).unsqueeze(0)


@pytest.mark.parametrize('new_grid', [(7, 7), (2, 5), (1, 1), (9, 4)])
def test_resize_position_interpolates_patches_and_keeps_the_class_token(new_grid: tuple[int, int]) -> None:
    image, token = torch.randn(3, 4, 5), torch.randn(3)
    expected = F.interpolate(image[None], size=new_grid, mode='bicubic', align_corners=False)[0]
    got = resize_position(_tokens(image, token), (4, 5), new_grid)
    torch.testing.assert_close(got, _tokens(expected, token))


def test_resize_position_leaves_its_own_grid_alone() -> None:
    embedding = torch.randn(1, 21, 3)
    assert resize_position(embedding, (4, 5), (4, 5)) is embedding


@pytest.mark.parametrize('grid', [(1, 1), (3, 3), (2, 5)])
def test_split_middle_undoes_insert_middle(grid: tuple[int, int]) -> None:
    patches, token = torch.randn(2, grid[0] * grid[1], 4), torch.randn(2, 1, 4)
    got, got_token = split_middle(insert_middle(patches, token, grid), grid)
    assert torch.equal(got, patches) and torch.equal(got_token, token[:, 0])
