"""Effective receptive fields: how much each pixel counts for the middle of the last feature map.

The idea is Luo et al.'s (arXiv 1701.04128); the convention that of RepLKNet (arXiv 2203.06717), which VMamba's figures
follow: the positive outputs of the middle token are summed over channels, and the positive part of the gradient with
respect to the picture is summed over colours and averaged over pictures. Without the first of the two the sum over the
channels of a LayerNorm's output would be a constant.
"""

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

SHARES = (0.2, 0.3, 0.5, 0.99)
"""The shares of the whole that RepLKNet's table names."""


def contributions(model: Callable[[Tensor], Tensor | Sequence[Tensor]], picture: Tensor) -> np.ndarray:
    """How much each pixel of one picture counts for the middle token.

    Args:
        model (Callable): Gives a map [1, C, H', W'], or several, of which the last counts. The middle token is that of
            row H' // 2 and column W' // 2.
        picture (Tensor[1, in_channels, H, W]): Normalised picture.

    Returns:
        ndarray[H, W]: float64, not negative.

    Raises:
        ValueError: If the model gives something else than a map.
    """
    picture = picture.detach().requires_grad_()
    out = model(picture)
    last = out if isinstance(out, Tensor) else out[-1]
    if last.dim() != 4:
        raise ValueError(f'the model must give maps of shape [1, C, H, W], got {list(last.shape)}')
    middle = last[:, :, last.shape[2] // 2, last.shape[3] // 2]
    (gradient,) = torch.autograd.grad(middle.relu().sum(), picture)
    return gradient.relu().sum(dim=(0, 1)).double().cpu().numpy()


def receptive_field(model: Callable[[Tensor], Tensor | Sequence[Tensor]], pictures: Iterable[Tensor]) -> np.ndarray:
    """The mean of :func:`contributions` over pictures of one size.

    Args:
        model (Callable): See :func:`contributions`.
        pictures (Iterable[Tensor[1, in_channels, H, W]]): At least one.

    Returns:
        ndarray[H, W]: float64.

    Raises:
        ValueError: If there is no picture, or not a pixel of any counts.
    """
    total, count = None, 0
    for picture in pictures:
        scores = contributions(model, picture)
        total, count = scores if total is None else total + scores, count + 1
    if total is None:
        raise ValueError('a receptive field needs at least one picture, got none')
    if not 0 < total.sum() < np.inf:
        raise ValueError(f'the gradient must be finite and not zero everywhere, got a sum of {total.sum()}')
    return total / count


def square_sides(scores: np.ndarray, shares: Sequence[float] = SHARES) -> list[int]:
    """The smallest squares around the middle pixel that hold given shares of all contributions.

    RepLKNet's area ratio r is the square of side / S. It is taken here of the contributions themselves; RepLKNet's
    script takes it of log10(1 + contribution), which depends on their unit.

    Args:
        scores (ndarray[S, S]): Contributions, not negative.
        shares (Sequence[float]): Each above 0 and at most 1.

    Returns:
        list[int]: For each share the side in pixels, odd, or S where only the whole picture will do.

    Raises:
        ValueError: If ``scores`` is not square.
    """
    if scores.ndim != 2 or scores.shape[0] != scores.shape[1]:
        raise ValueError(f'`scores` must have shape [S, S], got {list(scores.shape)}')
    size = len(scores)
    rings = np.abs(np.arange(size) - size // 2)
    ring = np.maximum(rings[:, None], rings[None, :])
    held = np.bincount(ring.ravel(), weights=scores.ravel()).cumsum()
    # Rounding must not ask for more than there is.
    needed = [np.searchsorted(held, share * held[-1] * (1 - 1e-12)) for share in shares]
    return [min(2 * int(radius) + 1, size) for radius in needed]
