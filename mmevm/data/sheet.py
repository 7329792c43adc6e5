"""One image that shows some of a dataset's images with their annotations."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.registry import VISUALIZERS
from mmengine.structures import InstanceData, PixelData
from PIL import Image

from mmevm.data.images import EXACT, read_pixels
from mmevm.data.masks import class_ids, read_mask
from mmevm.data.palette import palette
from mmevm.data.records import Sample, UserData
from mmevm.data.splits import categories
from mmevm.files import replacing

_COUNT, _COLUMNS, _EDGE = 16, 4, 320


def draw_sheet(data: UserData, path: str | os.PathLike) -> Path | None:
    """Draw a contact sheet of up to 16 images, every class if they can show it; an existing file is replaced.

    Args:
        data (UserData): The dataset.
        path (str | os.PathLike): A JPEG or PNG file.

    Returns:
        Path | None: The file; ``None`` if no image can be read.
    """
    draw = _DRAWERS[data.kind](data)
    tiles = [_tile(draw(*scaled, sample)) for sample in _chosen(data) if (scaled := _load(sample))]
    if not tiles:
        return None
    tiles += [np.full_like(tiles[0], 255)] * (-len(tiles) % min(_COLUMNS, len(tiles)))
    columns = min(_COLUMNS, len(tiles))
    rows = [np.concatenate(tiles[start : start + columns], axis=1) for start in range(0, len(tiles), columns)]
    path = Path(path)
    kind = 'PNG' if path.suffix.lower() == '.png' else 'JPEG'
    with replacing(path) as draft:
        Image.fromarray(np.concatenate(rows)).save(draft, format=kind, quality=90)
    return path


def _chosen(data: UserData) -> Iterator[Sample]:
    """Yield images that show many classes, each adding one as long as there are new ones."""
    split = next((part for part in data.splits.values() if part.samples), None)
    rest = [sample for sample in (split.samples if split else ()) if not sample.fault]
    found = {id(sample): categories(sample, data.values) for sample in rest}
    seen: set[int] = set()
    for sample in sorted(rest, key=lambda sample: not found[id(sample)])[:_COUNT]:
        new = max(rest, key=lambda other: (len(found[id(other)] - seen), other is sample))
        seen |= found[id(new)]
        rest.remove(new)
        yield new


def _load(sample: Sample) -> tuple[np.ndarray, float] | None:
    """Return an image that fits a tile, uint8 [H, W, 3], and its scale; ``None`` if it cannot be read."""
    try:
        image = _read(sample.path)
    except Exception:  # whatever readers raise; the checks of the files report it
        return None
    scale = _EDGE / max(image.size)
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    return np.asarray(image.resize(size)), scale


def _read(path: str) -> Image.Image:
    pixels = read_pixels(path)
    if not path.lower().endswith(EXACT):
        return Image.fromarray(pixels).convert('RGB')
    bands = np.atleast_3d(pixels)
    bands = bands[..., : 3 if bands.shape[2] >= 3 else 1].astype(float)
    bands = (bands - bands.min()) * (255 / max(float(np.ptp(bands)), 1e-9))
    return Image.fromarray(np.broadcast_to(bands, (*bands.shape[:2], 3)).astype(np.uint8))


def _tile(image: np.ndarray) -> np.ndarray:
    tile = np.full((_EDGE + 8, _EDGE + 8, 3), 255, np.uint8)
    tile[4 : 4 + image.shape[0], 4 : 4 + image.shape[1]] = image[:_EDGE, :_EDGE]
    return tile


_Draw = Callable[[np.ndarray, float, Sample], np.ndarray]


def _visualizer(kind: str, data: UserData) -> Any:
    library = kind.partition('.')[0]
    with VISUALIZERS.switch_scope_and_registry(library) as registry:
        visualizer = registry.get(kind)()  # not MMEngine's current one, which the hooks of a run draw on
    visualizer.dataset_meta = dict(classes=tuple(data.classes), palette=palette(len(data.classes)))
    return visualizer


def _draw_objects(data: UserData) -> _Draw:
    from mmdet.structures import DetDataSample
    from mmdet.structures.mask import BitmapMasks
    from pycocotools import mask as runs

    visualizer = _visualizer('mmdet.DetLocalVisualizer', data)

    def draw(image: np.ndarray, scale: float, sample: Sample) -> np.ndarray:
        things = [thing for thing in sample.things if not thing.faulty]
        boxes = np.array([thing.box for thing in things], np.float32).reshape(-1, 4) * scale
        boxes[:, 2:] += boxes[:, :2]
        truth = InstanceData(bboxes=boxes, labels=np.array([thing.category for thing in things], int))
        if things and all(isinstance(thing.shape, list) and not thing.crowd for thing in things):
            height, width = image.shape[:2]
            shapes = [[[value * scale for value in polygon] for polygon in thing.shape] for thing in things]
            bitmaps = [runs.decode(runs.merge(runs.frPyObjects(shape, height, width))) for shape in shapes]
            truth.masks = BitmapMasks(bitmaps, height, width)
        visualizer.add_datasample('', image, _sample(DetDataSample, gt_instances=truth), draw_pred=False)
        return visualizer.get_image()

    return draw


def _draw_labels(data: UserData) -> _Draw:
    from mmseg.structures import SegDataSample

    visualizer = _visualizer('mmseg.SegLocalVisualizer', data)

    def draw(image: np.ndarray, scale: float, sample: Sample) -> np.ndarray:
        labels = class_ids(read_mask(str(sample.mask), data.colours), data.values)
        labels = np.asarray(Image.fromarray(labels).resize(image.shape[1::-1], Image.Resampling.NEAREST))
        truth = PixelData(data=labels[None].astype(np.int64))
        visualizer.add_datasample('', image, _sample(SegDataSample, gt_sem_seg=truth), draw_pred=False)
        return visualizer.get_image()

    return draw


def _draw_class(data: UserData) -> _Draw:
    from mmpretrain.structures import DataSample

    visualizer = _visualizer('mmpretrain.UniversalVisualizer', data)

    def draw(image: np.ndarray, scale: float, sample: Sample) -> np.ndarray:
        truth = DataSample().set_gt_label(sample.label)
        return visualizer.visualize_cls(image, truth, classes=data.classes, draw_pred=False)

    return draw


def _sample(kind: type, **fields: Any) -> Any:
    sample = kind()
    for name, value in fields.items():
        setattr(sample, name, value)
    return sample


_DRAWERS: dict[str, Callable[[UserData], _Draw]] = {
    'detection': _draw_objects,
    'segmentation': _draw_labels,
    'classification': _draw_class,
}
