"""Loss, learning rate and validation results over a training run, from the scalars that MMEngine writes."""

import json
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LOSSES = {'loss': ('total', '#222222'), 'loss_cls': ('classification', '#1f77b4'), 'loss_bbox': ('box', '#d62728')}
# Label, colour, and what the value is divided by: mmseg and mmpretrain write percents.
_METRICS = {
    'coco/bbox_mAP_50': ('AP50', '#2a9d3a', 1),
    'coco/bbox_mAP': ('AP', '#8c564b', 1),
    'coco/segm_mAP_50': ('mask AP50', '#1f77b4', 1),
    'coco/segm_mAP': ('mask AP', '#e377c2', 1),
    'mIoU': ('mean IoU', '#2a9d3a', 100),
    'aAcc': ('pixel accuracy', '#8c564b', 100),
    'accuracy/top1': ('top-1', '#2a9d3a', 100),
    'accuracy/top5': ('top-5', '#8c564b', 100),
}


def read_scalars(path: str | os.PathLike) -> list[dict]:
    """Read MMEngine's ``scalars.json``: one JSON object a line, of training logs and validation results."""
    with open(path, encoding='utf-8') as file:
        return [json.loads(line) for line in file if line.strip()]


def series(records: Sequence[dict], key: str) -> tuple[np.ndarray, np.ndarray]:
    """Pick one quantity out of the records.

    Args:
        records (Sequence[dict]): From :func:`read_scalars`.
        key (str): Such as ``'loss'`` or ``'coco/bbox_mAP_50'``.

    Returns:
        tuple[ndarray[n], ndarray[n]]: Iterations and values.
    """
    pairs, iteration = [], 0
    for record in records:
        # Epoch-based runs count validations in epochs; the training record before one tells the iteration.
        if 'lr' in record:
            iteration = record['step']
        if key in record:
            pairs.append((iteration, record[key]))
    return np.array([step for step, _ in pairs]), np.array([value for _, value in pairs], dtype=float)


def _draw_losses(axes: 'Axes', records: Sequence[dict]) -> None:
    for key, (label, color) in _LOSSES.items():
        steps, values = series(records, key)
        if len(steps):
            axes.plot(steps, values, color=color, label=label, linewidth=1.8)
    axes.set(ylabel='training loss', ylim=(0, None))
    axes.legend(frameon=False)


def _draw_metrics(axes: 'Axes', records: Sequence[dict]) -> None:
    for key, (label, color, unit) in _METRICS.items():
        steps, values = series(records, key)
        if len(steps):
            values = values / unit
            label = f'{label}, {values[-1]:.2f} at last'
            axes.plot(steps, values, color=color, label=label, linewidth=1.8, marker='o', markersize=4)
    axes.set(ylabel='validation', ylim=(0, 1.05))
    axes.legend(frameon=False)


def _draw_learning_rate(axes: 'Axes', records: Sequence[dict]) -> None:
    axes.plot(*series(records, 'lr'), color='#9467bd', linewidth=1.8)
    axes.set(ylabel='learning rate', ylim=(0, None))
    axes.ticklabel_format(axis='y', style='sci', scilimits=(0, 0))


def draw_curves(scalars: str | os.PathLike, path: str | os.PathLike, title: str = '') -> str:
    """Draw loss, validation results and learning rate over iterations side by side.

    Args:
        scalars (str | os.PathLike): ``vis_data/scalars.json`` of a training run.
        path (str | os.PathLike): PNG file to write.
        title (str): Heading of the picture.

    Returns:
        str: Absolute path of the PNG.

    Raises:
        ValueError: The file holds no training loss.
    """
    # The figure's own canvas, so that no display and no change of matplotlib's global backend is needed.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    records = read_scalars(scalars)
    if not any('loss' in record for record in records):
        raise ValueError(f'{scalars} must hold training logs with a `loss`, got {len(records)} lines without one')
    figure = Figure(figsize=(13, 4), dpi=110, layout='constrained')
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, 3)
    for axes, draw in zip(panels, (_draw_losses, _draw_metrics, _draw_learning_rate), strict=True):
        draw(axes, records)
        axes.set_xlabel('iteration')
        axes.grid(alpha=0.25)
        axes.spines[['top', 'right']].set_visible(False)
    figure.suptitle(title)
    figure.savefig(path)
    return os.path.abspath(path)
