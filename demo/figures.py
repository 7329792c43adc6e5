"""Figures of results: predictions next to the ground truth, and training curves."""

import contextlib
import io
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from PIL import Image

# Far apart in hue and in lightness.
_PALETTE = (
    '#e6194b #1f77e6 #2ca02c #f58231 #911eb4 #0fa3a3 #d81bb0 #8c6d1f #5b5bd6 #800000 #ffe119 #bcf60c #46f0f0 #fabebe '
    '#aaffc3 #000075 #a9a9a9 #e6beff'
).split()
_RIGHT, _WRONG, _OTHER = '#2a9d3a', '#d62728', '#9aa5b1'
_TRUE = '#ffe119'
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


def color_table(labels: Sequence[int]) -> dict[int, str]:
    """Return a colour for each label, by its position among the sorted labels."""
    return {label: _PALETTE[index % len(_PALETTE)] for index, label in enumerate(sorted(labels))}


def _read(path: str | os.PathLike) -> np.ndarray:
    with Image.open(path) as image:
        return np.array(image)


def _save(figure: Figure, path: str | os.PathLike) -> str:
    figure.savefig(path)
    return os.path.abspath(path)


def _make_grid(count: int, titles: Sequence[str], edge: float) -> tuple[Figure, np.ndarray]:
    """Make a figure with rows of panels, two rows side by side.

    Args:
        count (int): Rows, at least 1.
        titles (Sequence[str]): Headings of a row's panels.
        edge (float): Width and height of a panel in inches.

    Returns:
        tuple[Figure, ndarray[count, len(titles)]]: The figure and its axes.
    """
    columns, width = min(2, count), len(titles)
    lines = -(-count // columns)
    figure = Figure(figsize=(columns * width * edge, lines * edge + 0.3), dpi=100, layout='constrained')
    figure.get_layout_engine().set(w_pad=0.03, h_pad=0.03, wspace=0, hspace=0)
    panels = figure.subplots(lines, columns * width, squeeze=False)
    for axes in panels.flat:
        axes.axis('off')
    for axes, title in zip(panels[0], titles * columns, strict=True):
        axes.set_title(title, fontsize=11, loc='left')
    return figure, panels.reshape(-1, width)[:count]


def draw_objects(axes: Axes, image: np.ndarray, objects: Sequence[tuple[Mapping, str, str, np.ndarray | None]]) -> None:
    """Draw an image and the boxes, labels and masks of objects.

    Args:
        axes (Axes): Where.
        image (ndarray[H, W, 3]): uint8.
        objects (Sequence[tuple]): COCO annotation or result, label, colour, and bool mask [H, W] or None.
    """
    axes.imshow(image)
    height, width = image.shape[:2]
    for _, _, color, mask in objects:
        if mask is not None:
            overlay = np.zeros((height, width, 4))
            overlay[mask.astype(bool)] = (*to_rgb(color), 0.5)
            axes.imshow(overlay)
    for entry, label, color, _ in objects:
        x, y, w, h = entry['bbox']
        axes.add_patch(Rectangle((x, y), w, h, fill=False, edgecolor=color, linewidth=2.5))
        right = x > 0.6 * width
        place = {'ha': 'right' if right else 'left', 'va': 'bottom' if y > 0.1 * height else 'top'}
        plate = {'facecolor': color, 'edgecolor': color, 'pad': 1.5}
        axes.text(min(x + w, width) if right else x, max(y, 0), label, color='white', fontsize=8, bbox=plate, **place)
    axes.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))


def draw_detections(
    annotations: str | os.PathLike,
    results: str | os.PathLike,
    images: str | os.PathLike,
    path: str | os.PathLike,
    *,
    count: int = 8,
    score_threshold: float = 0.3,
    masks: bool = False,
) -> str:
    """Draw the first images of a dataset with ground truth and predictions.

    Args:
        annotations (str | os.PathLike): COCO annotation file.
        results (str | os.PathLike): COCO results file, as ``CocoMetric`` writes with ``outfile_prefix``.
        images (str | os.PathLike): Folder of the images.
        path (str | os.PathLike): PNG file to write.
        count (int): Number of images.
        score_threshold (float): Predictions below it are left out.
        masks (bool): Draw the objects' masks too; the results file must be one of segmentations.

    Returns:
        str: Absolute path of the PNG.
    """
    from pycocotools.coco import COCO

    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(annotations)
    chosen = list(truth.imgs.values())[:count]
    found = [entry for entry in json.loads(Path(results).read_text()) if entry['score'] >= score_threshold]
    colors = color_table({entry['category_id'] for entry in (*truth.anns.values(), *found)})

    def describe(entry: dict) -> tuple[dict, str, str, np.ndarray | None]:
        label = truth.cats[entry['category_id']]['name'] + (f' {entry["score"]:.2f}' if 'score' in entry else '')
        return entry, label, colors[entry['category_id']], truth.annToMask(entry) if masks else None

    figure, rows = _make_grid(len(chosen), ('ground truth', 'prediction'), 3.2)
    for row, image in zip(rows, chosen, strict=True):
        predicted = [entry for entry in found if entry['image_id'] == image['id']]
        for axes, entries in zip(row, (truth.imgToAnns[image['id']], predicted), strict=True):
            draw_objects(axes, _read(Path(images) / image['file_name']), list(map(describe, entries)))
    return _save(figure, path)


def draw_found(
    annotations: str | os.PathLike,
    results: str | os.PathLike,
    images: str | os.PathLike,
    path: str | os.PathLike,
    score_threshold: float = 0.3,
) -> str:
    """Draw a dataset's first image twice: with the annotated boxes, and with the predicted ones.

    Predictions are green where they meet an annotated box of their class at an IoU of 0.5 or more that no better one
    has taken, and red elsewhere.

    Args:
        annotations (str | os.PathLike): COCO annotation file.
        results (str | os.PathLike): COCO results file of boxes.
        images (str | os.PathLike): Folder to which the images' names are relative.
        path (str | os.PathLike): PNG or JPEG file to write.
        score_threshold (float): Predictions below it are left out.

    Returns:
        str: Absolute path of the file.
    """
    from pycocotools.coco import COCO

    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(annotations)
    image = next(iter(coco.imgs.values()))
    pixels = _read(Path(images) / image['file_name'])
    truth = [entry for entry in coco.imgToAnns[image['id']] if not entry['iscrowd']]
    predicted = [entry for entry in json.loads(Path(results).read_text()) if entry['image_id'] == image['id']]
    predicted = [entry for entry in predicted if entry['score'] >= score_threshold]
    is_right = match(truth, predicted)
    titles = (
        f'annotated: {len(truth)}',
        f'predicted: {len(predicted)}, {sum(is_right)} of them right (green)',
    )
    figure = Figure(figsize=(14, 14 / 2 * pixels.shape[0] / pixels.shape[1] + 0.3), dpi=110, layout='constrained')
    colors = ([_TRUE] * len(truth), [_RIGHT if right else _WRONG for right in is_right])
    for axes, title, entries, edges in zip(figure.subplots(1, 2), titles, (truth, predicted), colors, strict=True):
        axes.imshow(pixels)
        axes.axis('off')
        axes.set_title(title, fontsize=11, loc='left')
        for entry, color in zip(entries, edges, strict=True):
            x, y, w, h = entry['bbox']
            axes.add_patch(Rectangle((x, y), w, h, fill=False, edgecolor=color, linewidth=1.2))
    return _save(figure, path)


def match(truth: Sequence[Mapping], predicted: Sequence[Mapping], threshold: float = 0.5) -> list[bool]:
    """Return for each prediction whether it is right: the best ones choose first, and each annotation is taken once."""
    from pycocotools import mask as coding

    if not truth or not predicted:
        return [False] * len(predicted)
    overlaps = coding.iou(
        np.array([entry['bbox'] for entry in predicted], dtype=float),
        np.array([entry['bbox'] for entry in truth], dtype=float),
        [0] * len(truth),
    )
    is_right = [False] * len(predicted)
    for index in sorted(range(len(predicted)), key=lambda i: -predicted[i]['score']):
        same = np.array([entry['category_id'] == predicted[index]['category_id'] for entry in truth])
        best = int(np.argmax(overlaps[index] * same))
        if overlaps[index, best] * same[best] >= threshold:
            is_right[index] = True
            overlaps[:, best] = 0
    return is_right


def overlay(image: np.ndarray, labels: np.ndarray, colors: Mapping[int, str]) -> np.ndarray:
    """Overlay colours on an image where its labels have one.

    Args:
        image (ndarray[H, W, 3]): uint8.
        labels (ndarray[H, W]): uint8.
        colors (Mapping[int, str]): By label.

    Returns:
        ndarray[H, W, 3]: uint8.
    """
    table = {label: 255 * np.array(to_rgb(color)) for label, color in colors.items()}
    out = image.astype(float)
    for label, color in table.items():
        out[labels == label] = 0.4 * out[labels == label] + 0.6 * color
    return out.round().astype(np.uint8)


def draw_segmentations(
    images: str | os.PathLike,
    truth: str | os.PathLike,
    predicted: str | os.PathLike,
    names: Mapping[int, str],
    path: str | os.PathLike,
    count: int = 8,
) -> str:
    """Draw the first images of a folder, overlaid with true and predicted labels, and a legend.

    Args:
        images (str | os.PathLike): Folder of ``<name>.jpg``.
        truth (str | os.PathLike): Folder of ``<name>.png``, uint8 label maps; 0 is unlabelled.
        predicted (str | os.PathLike): As above, as mmseg's ``IoUMetric`` writes with ``output_dir``.
        names (Mapping[int, str]): Name of every label but 0.
        path (str | os.PathLike): PNG file to write.
        count (int): Number of images.

    Returns:
        str: Absolute path of the PNG.
    """
    chosen = sorted(Path(images).glob('*.jpg'))[:count]
    maps = [[_read(Path(folder) / f'{file.stem}.png') for folder in (truth, predicted)] for file in chosen]
    colors = color_table({int(label) for pair in maps for labels in pair for label in np.unique(labels)} - {0})
    figure, rows = _make_grid(len(chosen), ('image', 'ground truth', 'prediction'), 2.1)
    for row, file, pair in zip(rows, chosen, maps, strict=True):
        image = _read(file)
        for axes, pixels in zip(row, (image, *(overlay(image, labels, colors) for labels in pair)), strict=True):
            axes.imshow(pixels)
    handles = [Patch(color=color, label=names[label]) for label, color in colors.items()]
    figure.legend(handles=handles, loc='outside lower left', ncols=9, frameon=False, fontsize=9)
    return _save(figure, path)


def draw_classes(axes: Axes, label: int, scores: np.ndarray, names: Sequence[str]) -> None:
    """Draw a bar for each of the five likeliest classes; green is the true one, red a wrong best one."""
    top = np.argsort(-scores, kind='stable')[:5]
    colors = [_RIGHT if index == label else _OTHER if rank else _WRONG for rank, index in enumerate(top)]
    bars = axes.barh(range(len(top)), scores[top], height=0.5, color=colors)
    axes.bar_label(bars, fmt='%.2f', padding=3, fontsize=8)
    axes.set(xlim=(0, 1.25), xticks=[])
    axes.set_yticks(range(len(top)), [names[index] for index in top], fontsize=9)
    axes.invert_yaxis()
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def draw_classifications(
    items: Sequence[tuple[str | np.ndarray, int, np.ndarray]], names: Sequence[str], path: str | os.PathLike
) -> str:
    """Draw images with their five likeliest classes, three in a row.

    Args:
        items (Sequence[tuple[str | ndarray, int, ndarray]]): Image file or uint8 image [H, W], true class, and a score
            for each class.
        names (Sequence[str]): Names of all classes.
        path (str | os.PathLike): PNG file to write.

    Returns:
        str: Absolute path of the PNG.
    """
    lines = -(-len(items) // 3)
    figure = Figure(figsize=(12.3, 1.55 * lines), dpi=100, layout='constrained')
    panels = figure.subplots(lines, 6, squeeze=False, width_ratios=[1, 1.1] * 3)
    for axes in panels.flat:
        axes.axis('off')
    for (left, right), (image, label, scores) in zip(panels.reshape(-1, 2), items, strict=False):
        left.imshow(image if isinstance(image, np.ndarray) else Image.open(image).convert('RGB'), cmap='gray')
        right.axis('on')
        draw_classes(right, label, scores, names)
    return _save(figure, path)


def read_series(path: str | os.PathLike) -> dict[str, tuple[list[int], list[float]]]:
    """Read iterations and values of every quantity in MMEngine's ``scalars.json``."""
    found: dict[str, tuple[list[int], list[float]]] = {}
    iteration = 0
    for line in Path(path).read_text(encoding='utf-8').splitlines():
        record = json.loads(line)
        # Epoch-based runs count validations in epochs; the training record before one has the iteration.
        iteration = record['step'] if 'lr' in record else iteration
        for key, value in record.items():
            steps, values = found.setdefault(key, ([], []))
            steps.append(iteration)
            values.append(value)
    return found


def draw_curves(scalars: str | os.PathLike, path: str | os.PathLike, title: str = '') -> str:
    """Draw loss, validation results and learning rate over iterations side by side.

    Args:
        scalars (str | os.PathLike): ``vis_data/scalars.json`` of a training run.
        path (str | os.PathLike): PNG file to write.
        title (str): Heading of the figure.

    Returns:
        str: Absolute path of the PNG.
    """
    found = read_series(scalars)
    figure = Figure(figsize=(13, 4), dpi=110, layout='constrained')
    losses, metrics, rate = figure.subplots(1, 3)
    for key in [key for key in _LOSSES if key in found]:
        label, color = _LOSSES[key]
        losses.plot(*found[key], color=color, label=label, linewidth=1.8)
    losses.set(ylabel='training loss', ylim=(0, None))
    for key in [key for key in _METRICS if key in found]:
        label, color, unit = _METRICS[key]
        steps, values = found[key][0], np.array(found[key][1]) / unit
        label = f'{label}, {values[-1]:.2f} at last'
        metrics.plot(steps, values, color=color, label=label, linewidth=1.8, marker='o', markersize=4)
    metrics.set(ylabel='validation', ylim=(0, 1.05))
    rate.plot(*found['lr'], color='#9467bd', linewidth=1.8)
    rate.set(ylabel='learning rate', ylim=(0, None))
    rate.ticklabel_format(axis='y', style='sci', scilimits=(0, 0))
    for axes in (losses, metrics):
        axes.legend(frameon=False)
    for axes in (losses, metrics, rate):
        axes.set_xlabel('iteration')
        axes.grid(alpha=0.25)
        axes.spines[['top', 'right']].set_visible(False)
    figure.suptitle(title)
    return _save(figure, path)
