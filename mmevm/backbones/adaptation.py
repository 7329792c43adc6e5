"""Entries of checkpoints that were made for other images than the model's: input channels and patch grids."""

from collections.abc import Mapping
from math import gcd, isqrt, prod
from typing import Any

import torch
from torch import Tensor, nn

from mmevm.checkpoint.weights_only import CheckpointError
from mmevm.layers.vim import resize_position

Grid = tuple[int, int]

_RGB = 3
# Sides of the grids of Vim's released weights: images of 224 x 224 at strides 16 and 8.
_RELEASED = (14, 27)


def fit_channels(kernel: Tensor, channels: int) -> Tensor:
    """Adapt the kernel of a stem for RGB images to another number of input channels.

    Fewer than three channels each get the sum of the three kernels, divided by their number. More get the three kernels
    in turn (R, G, B, R, …), each divided by how often it occurs. Either way, an image with the same values in
    all channels gives the same output as before with these values in R, G and B.

    Args:
        kernel (Tensor[C, 3, P, P]): Kernel for RGB images.
        channels (int): Input channels n that are needed.

    Returns:
        Tensor[C, n, P, P].
    """
    if channels < _RGB:
        return kernel.sum(dim=1, keepdim=True).expand(-1, channels, -1, -1) / channels
    colours = torch.arange(channels, device=kernel.device) % _RGB
    return kernel[:, colours] / torch.bincount(colours)[colours].to(kernel.dtype)[:, None, None]


def adapt_stem(weights: dict[str, Any], name: str, stem: nn.Module | None) -> dict[str, str]:
    """Adapt a stem's kernel in place if the model has other input channels; see ``Backbone.adapt``.

    Args:
        weights (dict[str, Any]): Entries of a backbone.
        name (str): Name of the kernel.
        stem (nn.Module, optional): The model's convolution; anything else is left unchanged.

    Returns:
        dict[str, str]: What was done to the kernel, by its name.
    """
    kernel = weights.get(name)
    if not isinstance(stem, nn.Conv2d) or not isinstance(kernel, Tensor):
        return {}
    # Not the shape of the weight itself, of which a sharded model has a part.
    wanted = stem.in_channels // stem.groups
    expected = [stem.out_channels, wanted, *stem.kernel_size]
    given = kernel.shape[1] if kernel.dim() == 4 else wanted
    if given == wanted or [*kernel.shape[:1], wanted, *kernel.shape[2:]] != expected:
        return {}
    if given != _RGB:
        weights[name] = CheckpointError(
            f'{name} (expected {expected}, got {list(kernel.shape)}): it is for images of {given} channels, '
            f'the model for {wanted}. Weights are only adapted from 3 channels (RGB); build the model with '
            f'in_channels={given}, or take weights for RGB images'
        )
        return {name: 'refused'}
    weights[name] = fit_channels(kernel, wanted)
    few, many = 'the sum of R, G and B, shared out equally', 'R, G, B in turn, divided by their repetitions'
    return {name: f'adapted from 3 to {wanted} input channels: {few if wanted < _RGB else many}'}


def adapt_positions(weights: dict[str, Any], width: int, grid: Grid, checkpoint_grid: Grid | None) -> dict[str, str]:
    """Interpolate Vim's ``pos_embed`` in place if the file has another grid; see ``Backbone.adapt``.

    Args:
        weights (dict[str, Any]): Entries of a backbone.
        width (int): Values of a position, C.
        grid (tuple[int, int]): H and W, the model's patches.
        checkpoint_grid (tuple[int, int], optional): The grid of files that do not store theirs in ``pos_grid``.

    Returns:
        dict[str, str]: What was done to the embedding, by its name.
    """
    embedding = weights.get('pos_embed')
    if not isinstance(embedding, Tensor) or embedding.dim() != 3 or embedding.shape[::2] != (1, width):
        return {}
    patches = embedding.shape[1] - 1
    try:
        found = _stored_grid(weights, patches) or _given_grid(checkpoint_grid, patches) or _only_grid(patches, grid)
    except ValueError as error:
        own = [1, prod(grid) + 1, width]
        shapes = f' (expected {own}, got {list(embedding.shape)})' if list(embedding.shape) != own else ''
        weights['pos_embed'] = CheckpointError(f'pos_embed{shapes}: {error}')
        return {'pos_embed': 'refused'}
    if found == grid:
        return {}
    # bicubic interpolation in half precision is not implemented on every device
    precise = embedding.to(torch.promote_types(embedding.dtype, torch.float32))
    weights['pos_embed'] = resize_position(precise, found, grid).to(embedding.dtype)
    return {'pos_embed': f'interpolated from {_format(found)} to {_format(grid)} patches'}


def _format(grid: Grid) -> str:
    return f'{grid[0]} x {grid[1]}'


def _stored_grid(weights: Mapping[str, Any], patches: int) -> Grid | None:
    """Return the grid stored in a file, unless its embedding was changed without it."""
    stored = weights.get('pos_grid')
    if not isinstance(stored, Tensor) or stored.is_meta or stored.numel() != 2:
        return None
    height, width = map(int, stored.flatten().tolist())
    return (height, width) if height > 0 and height * width == patches else None


def _given_grid(grid: Grid | None, patches: int) -> Grid | None:
    if grid is not None and prod(grid) != patches:
        raise ValueError(
            f'it has {patches} patches, and checkpoint_grid={grid} of the model says {prod(grid)}. Give the grid of '
            'this file, or leave checkpoint_grid out'
        )
    return grid


def _only_grid(patches: int, grid: Grid) -> Grid:
    """Return the only likely grid of a file that does not store it: a square, as upstream's.

    Raises:
        ValueError: There is none, or the file may as well be for images of the model's aspect ratio.
    """
    side = isqrt(patches)
    square = [(side, side)] if side * side == patches else []
    of_our_aspect = _scaled(grid, patches)
    upstreams = side in _RELEASED and patches != prod(grid)
    if square and (upstreams or of_our_aspect in (None, square[0])):
        return square[0]
    likely = [*square, *([of_our_aspect, of_our_aspect[::-1]] if of_our_aspect else [])]
    which = f'they may be {" or ".join(map(_format, dict.fromkeys(likely)))}' if likely else 'they are no square'
    raise ValueError(
        f'the file does not tell the grid of its {patches} patches, and {which} (height x width); the model has '
        f"{_format(grid)}. Give the file's grid as Vim(checkpoint_grid=(HEIGHT, WIDTH)), in the tools with "
        '--cfg-options model.backbone.checkpoint_grid="(HEIGHT,WIDTH)"'
    )


def _scaled(grid: Grid, patches: int) -> Grid | None:
    """Return the grid with a number of patches and the aspect ratio of another, if there is one."""
    divisor = gcd(*grid)
    height, width = (side // divisor for side in grid)
    factor = isqrt(patches // (height * width))
    return (factor * height, factor * width) if factor * factor * height * width == patches else None
