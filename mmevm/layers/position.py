"""Absolute position embeddings of a grid of patches with a class token in its middle."""

import torch
import torch.nn.functional as F
from torch import Tensor


def middle(grid: tuple[int, int]) -> int:
    """The class token's place among the tokens of a grid of patches."""
    return grid[0] * grid[1] // 2


def insert_middle(tokens: Tensor, token: Tensor, grid: tuple[int, int]) -> Tensor:
    """Args: tokens (Tensor[B, H * W, C]), token (Tensor[B, 1, C]). Returns: Tensor[B, H * W + 1, C]."""
    m = middle(grid)
    return torch.cat([tokens[:, :m], token, tokens[:, m:]], dim=1)


def split_middle(tokens: Tensor, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """The inverse of :func:`insert_middle`. Returns: Tensor[B, H * W, C] and Tensor[B, C]."""
    m = middle(grid)
    return torch.cat([tokens[:, :m], tokens[:, m + 1 :]], dim=1), tokens[:, m]


def resize_position(embedding: Tensor, grid: tuple[int, int], new_grid: tuple[int, int]) -> Tensor:
    """Interpolates a position embedding bicubically for another grid; the class token's stays, in the new middle.

    Args:
        embedding (Tensor[1, H * W + 1, C]): Position embedding.
        grid (tuple[int, int]): H and W, the patches it was made for.
        new_grid (tuple[int, int]): H' and W', the patches it is needed for.

    Returns:
        Tensor[1, H' * W' + 1, C].
    """
    if grid == new_grid:
        return embedding
    patches, token = split_middle(embedding, grid)
    patches = patches.unflatten(1, grid).permute(0, 3, 1, 2)  # [1, H * W, C] -> [1, C, H, W]
    patches = F.interpolate(patches, size=new_grid, mode='bicubic', align_corners=False)
    return insert_middle(patches.flatten(2).transpose(1, 2), token.unsqueeze(1), new_grid)
