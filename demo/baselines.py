"""Scores of predictions that never look at the image, for comparison with a trained network's."""

import contextlib
import io
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np


def constant_top1(train_labels: Iterable[int], val_labels: Sequence[int]) -> float:
    """Return the top-1 accuracy, in percent, of naming the training set's most frequent class for every image."""
    constant = Counter(train_labels).most_common(1)[0][0]
    return 100 * sum(label == constant for label in val_labels) / len(val_labels)


def constant_miou(train_maps: Iterable[np.ndarray], val_maps: Iterable[np.ndarray]) -> float:
    """Return the mean IoU, in percent, of giving every pixel the training set's most frequent class.

    Args:
        train_maps (Iterable[ndarray[H, W]]): uint8 label maps; 0 is unlabelled and left out.
        val_maps (Iterable[ndarray[H, W]]): As above.

    Returns:
        float: Mean over the classes that are there or are predicted, as mmseg's IoUMetric has it.
    """
    train, val = (sum(np.bincount(labels.ravel(), minlength=256) for labels in maps) for maps in (train_maps, val_maps))
    train[0] = val[0] = 0
    constant = int(train.argmax())
    present = set(np.flatnonzero(val)) | {constant}
    return 100 * val[constant] / val.sum() / len(present)


def _typical_masks(annotations: str | os.PathLike) -> dict[int, tuple[np.ndarray, int]]:
    """Return for each category the pixels covered at least half as often as the most covered one, and its objects."""
    from pycocotools.coco import COCO

    coco, sums, counts = COCO(annotations), {}, defaultdict(int)
    for annotation in coco.anns.values():
        category = annotation['category_id']
        sums[category] = sums.get(category, 0) + coco.annToMask(annotation).astype(np.int64)
        counts[category] += 1
    return {category: (total >= total.max() / 2, counts[category]) for category, total in sums.items()}


def constant_mask_ap50(train: str | os.PathLike, val: str | os.PathLike) -> float:
    """Return COCO's mask AP at IoU 0.5 of predicting, in every image, one typical mask of every category.

    Args:
        train (str | os.PathLike): Annotation file that the masks are averaged over.
        val (str | os.PathLike): Annotation file that they are compared with; images as large as the training set's.

    Returns:
        float: AP50 from 0 to 1.
    """
    from pycocotools import mask as coding
    from pycocotools.coco import COCO

    with contextlib.redirect_stdout(io.StringIO()):
        masks, truth = _typical_masks(train), COCO(val)
    total = sum(count for _, count in masks.values())
    predictions = [
        dict(
            image_id=image,
            category_id=category,
            score=count / total,
            segmentation=coding.encode(np.asfortranarray(mask.astype(np.uint8))),
        )
        for image in truth.getImgIds()
        for category, (mask, count) in masks.items()
    ]
    return _ap50(truth, predictions, 'segm')


def box_grid_ap50(train: str | os.PathLike, val: str | os.PathLike) -> float:
    """Return COCO's box AP at IoU 0.5 of covering every image with copies of the training set's mean box.

    Args:
        train (str | os.PathLike): Annotation file that width and height are averaged over; of one category.
        val (str | os.PathLike): Annotation file that the boxes are compared with.

    Returns:
        float: AP50 from 0 to 1.
    """
    from pycocotools.coco import COCO

    with contextlib.redirect_stdout(io.StringIO()):
        known, truth = COCO(train), COCO(val)
    w, h = np.mean([entry['bbox'][2:] for entry in known.anns.values() if not entry['iscrowd']], axis=0).tolist()
    predictions = [
        dict(image_id=image['id'], category_id=category, score=0.5, bbox=[x, y, w, h])
        for image in truth.imgs.values()
        for category in truth.cats
        for y in np.arange(0, image['height'] - h / 2, h).tolist()
        for x in np.arange(0, image['width'] - w / 2, w).tolist()
    ]
    return _ap50(truth, predictions, 'bbox')


def _ap50(truth: Any, predictions: list[dict[str, Any]], kind: str) -> float:
    """Evaluate predictions in COCO's format; up to 1000 an image."""
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(truth, truth.loadRes(predictions), kind)
        evaluation.params.maxDets = [1, 100, 1000]
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return float(evaluation.stats[1])
