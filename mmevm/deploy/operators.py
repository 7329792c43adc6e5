"""Operators of exported models: what a graph for every size of image cannot hold as plain operations of PyTorch.

A program that was saved with ``--format pt2`` finds them once this module is imported.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mmevm.ops import visual_scan
from mmevm.ops.routes import unflatten


@torch.library.custom_op('mmevm_deploy::visual_scan', mutates_args=())
def scan_map(
    x: Tensor,
    x_proj: Tensor,
    dt_weight: Tensor,
    dt_bias: Tensor,
    A: Tensor,
    Ds: Tensor,
    step: int,
    routes: list[int],
) -> Tensor:
    """Scan a map together with the projections of its cells; see :func:`.functions.VisualScan`."""
    paths = unflatten(routes)
    if len(paths) == step * step:  # a cell is passed by one route: it needs the projection of that one
        x_dbl = x.new_empty(*x.shape[:3], 1, x_proj.shape[1])
        for route in paths:
            cells = x[:, route.row :: step, route.col :: step]
            x_dbl[:, route.row :: step, route.col :: step, 0] = cells @ x_proj[route.projection].mT
        paths = [route._replace(projection=0) for route in paths]
    else:
        x_dbl = torch.einsum('bhwd,pmd->bhwpm', x, x_proj)
    return visual_scan(x, x_dbl, dt_weight, A, Ds, routes=paths, step=step, dt_bias=dt_bias)


@scan_map.register_fake
def _(x: Tensor, *_: Any) -> Tensor:
    return x.new_empty(x.shape)


@torch.library.custom_op('mmevm_deploy::merge_patches', mutates_args=())
def merge_patches(x: Tensor) -> Tensor:
    """Put the cells of 2 x 2 patches beside each other: Tensor[B, H, W, C] -> Tensor[B, ⌈H / 2⌉, ⌈W / 2⌉, 4C]."""
    x = F.pad(x, (0, 0, 0, x.shape[2] % 2, 0, x.shape[1] % 2))
    return torch.cat([x[:, i::2, j::2] for j in range(2) for i in range(2)], dim=-1)


@merge_patches.register_fake
def _(x: Tensor) -> Tensor:
    B, H, W, C = x.shape
    return x.new_empty(B, (H + 1) // 2, (W + 1) // 2, 4 * C)


FILLED = -1e30
"""Score of what :func:`best` fills up with."""


@torch.library.custom_op('mmevm_deploy::best', mutates_args=())
def best(scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the largest scores in descending order, filled up to ``count`` where there are fewer.

    Args:
        scores (Tensor[B, N]): Scores.
        count (int): How many are returned.

    Returns:
        tuple[Tensor[B, count], Tensor[B, count]]: Scores and their int64 indices; :data:`FILLED` and 0.
    """
    missing = max(count - scores.shape[1], 0)
    top, indices = scores.topk(count - missing, dim=1)
    return F.pad(top, (0, missing), value=FILLED), F.pad(indices, (0, missing))


@best.register_fake
def _(scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    top = scores.new_empty(scores.shape[0], count)
    return top, top.to(torch.int64)


@torch.library.custom_op('mmevm_deploy::take', mutates_args=())
def take(maps: list[Tensor], chosen: list[Tensor], width: int) -> Tensor:
    """Return what the maps of several levels hold for chosen priors.

    Args:
        maps (list[Tensor[B, A * width, H, W]]): A map for each level, with A priors for each cell.
        chosen (list[Tensor[B, K]]): Indices of each level's priors, int64.
        width (int): Numbers for each prior.

    Returns:
        Tensor[B, K + ..., width]: Of all levels, one after another.
    """
    rows = [level.permute(0, 2, 3, 1).reshape(level.shape[0], -1, width) for level in maps]
    return torch.cat(
        [row.gather(1, index.unsqueeze(-1).expand(-1, -1, width)) for row, index in zip(rows, chosen, strict=True)],
        dim=1,
    )


@take.register_fake
def _(maps: list[Tensor], chosen: list[Tensor], width: int) -> Tensor:
    return maps[0].new_empty(maps[0].shape[0], sum(index.shape[1] for index in chosen), width)


@torch.library.custom_op('mmevm_deploy::nms', mutates_args=())
def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, count: int) -> tuple[Tensor, Tensor]:
    """Suppress boxes that overlap better ones, in every image of a batch.

    Args:
        boxes (Tensor[B, N, 4]): Corners.
        scores (Tensor[B, N]): Those that are not positive do not take part.
        iou_threshold (float): The overlap from which the worse box is dropped.
        count (int): How many boxes are returned.

    Returns:
        tuple[Tensor[B, count], Tensor[B, count]]: Scores of the boxes that are kept, in descending order and filled up
        with -1, and their int64 indices.
    """
    from torchvision.ops import nms as torchvision_nms

    top = scores.new_full((len(scores), count), -1.0)
    indices = torch.zeros(top.shape, dtype=torch.int64, device=scores.device)
    for i in range(len(scores)):
        candidates = (scores[i] > 0).nonzero().squeeze(1)
        kept = candidates[torchvision_nms(boxes[i, candidates], scores[i, candidates], iou_threshold)][:count]
        top[i, : len(kept)], indices[i, : len(kept)] = scores[i, kept], kept
    return top, indices


@nms.register_fake
def _(boxes: Tensor, scores: Tensor, iou_threshold: float, count: int) -> tuple[Tensor, Tensor]:
    top = scores.new_empty(scores.shape[0], count)
    return top, top.to(torch.int64)


@torch.library.custom_op('mmevm_deploy::roi_align', mutates_args=())
def roi_align(
    maps: list[Tensor],
    rois: Tensor,
    levels: Tensor,
    scales: list[float],
    size: int,
    sampling_ratio: int,
) -> Tensor:
    """Sample regions of interest, each from the map of its level.

    Args:
        maps (list[Tensor[B, C, H, W]]): A map for each level.
        rois (Tensor[R, 5]): Index of the image and corners.
        levels (Tensor[R]): Index of the map, int64.
        scales (list[float]): Cells of each map per pixel.
        size (int): Height and width of the samples.
        sampling_ratio (int): Points per bin and side; 0 adapts them to the region.

    Returns:
        Tensor[R, C, size, size].
    """
    from torchvision.ops import roi_align as torchvision_roi_align

    samples = maps[0].new_zeros(len(rois), maps[0].shape[1], size, size)
    for i, (features, scale) in enumerate(zip(maps, scales, strict=True)):
        chosen = (levels == i).nonzero().squeeze(1)
        samples[chosen] = torchvision_roi_align(features, rois[chosen], size, scale, sampling_ratio, aligned=True)
    return samples


@roi_align.register_fake
def _(maps: list[Tensor], rois: Tensor, levels: Tensor, scales: list[float], size: int, *_: Any) -> Tensor:
    return maps[0].new_empty(rois.shape[0], maps[0].shape[1], size, size)
