"""8-bit weights and activations, calibrated on images by ONNX Runtime's own quantizer; the scans stay float32."""

import json
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from mmevm.deploy.images import SUFFIXES, read_image
from mmevm.deploy.predictor import Predictor
from mmevm.errors import UsageError

MOST_IMAGES = 100
"""Images of a folder that are used, spread over it."""

_PRODUCTS = ('Conv', 'ConvTranspose', 'Gemm', 'MatMul')


def calibration_images(folder: str | os.PathLike) -> list[Path]:
    """Return up to :data:`MOST_IMAGES` images in a folder and those below it.

    Raises:
        UsageError: There is no such folder, no image in it, or one that cannot be read.
    """
    if not os.path.isdir(folder):
        raise UsageError(f'--int8 needs a folder of images, got {folder}')
    found = sorted(path for path in Path(folder).rglob('*') if path.suffix.lower() in SUFFIXES)
    if not found:
        raise UsageError(
            f'--int8 needs images ({", ".join(SUFFIXES)}), and there are none in {os.path.abspath(folder)}'
        )
    chosen = [found[i] for i in np.unique(np.linspace(0, len(found) - 1, MOST_IMAGES).astype(int))]
    for path in chosen:
        try:
            read_image(path)
        except (OSError, ValueError) as error:
            raise UsageError(f'--int8: {error}') from error
    return chosen


class _Reader(CalibrationDataReader):
    """Images as the model's inputs."""

    def __init__(self, predictor: Predictor, images: Sequence[Path]) -> None:
        self.name = predictor.session.get_inputs()[0].name
        self.inputs: Iterator[np.ndarray] = (predictor.prepare(read_image(image))[0] for image in images)

    def get_next(self) -> dict[str, np.ndarray] | None:
        """Return the next image, or None."""
        image = next(self.inputs, None)
        return None if image is None else {self.name: image}


def quantize(source: Path, target: Path, images: Sequence[Path]) -> float:
    """Write an exported model with 8-bit products.

    Args:
        source (Path): An exported model in float32.
        target (Path): The file to write.
        images (Sequence[Path]): What the ranges of activations are taken from.

    Returns:
        float: How far it agrees with the source on these images, see :func:`agreement`.
    """
    exact = Predictor(source)
    level = logging.getLogger().level
    try:
        logging.getLogger().setLevel(logging.ERROR)  # it recommends preprocessing, which knows no functions
        quantize_static(
            source,
            target,
            _Reader(exact, images),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(_PRODUCTS),
            per_channel=True,
            reduce_range=True,  # sums of pairs of products overflow on processors without VNNI
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=_last_products(source),
            extra_options={'MatMulConstBOnly': True},
        )
    finally:
        logging.getLogger().setLevel(level)
    model = onnx.load(target)
    rounded = Predictor(target)
    share = float(np.mean([agreement(exact(image), rounded(image)) for image in images]))
    entry = model.metadata_props.add()
    entry.key, entry.value = 'quantization', json.dumps({'bits': 8, 'images': len(images), 'agreement': share})
    onnx.save(model, target)
    return share


def _last_products(path: Path) -> list[str]:
    """Return the names of the products nearest to the outputs, whose rounding nothing evens out."""
    graph = onnx.load(path, load_external_data=False).graph
    producers = {output: node for node in graph.node for output in node.output}
    waiting, seen, last = [output.name for output in graph.output], set(), []
    while waiting:
        node = producers.get(waiting.pop())
        if node is None or node.name in seen:
            continue
        seen.add(node.name)
        if node.op_type in _PRODUCTS:
            last.append(node.name)
        else:
            waiting += node.input
    return last


def agreement(exact: Any, rounded: Any) -> float:
    """Return how far two predictions for an image agree, from 0 to 1.

    That is, for classifiers, whether the best class is the same; for detectors, the share of objects with a counterpart
    of their class that they overlap by half; for segmentors, the share of equal pixels; for maps, 1 minus the mean
    difference as a share of the mean magnitude.
    """
    if exact.task == 'classification':
        return float(exact.labels[0] == rounded.labels[0])
    if exact.boxes is not None:
        from torchvision.ops import box_iou  # detectors alone need it

        same = exact.labels[:, None] == rounded.labels
        overlaps = box_iou(torch.from_numpy(exact.boxes), torch.from_numpy(rounded.boxes)).numpy()
        found = (same & (overlaps > 0.5)).any(axis=1)
        return float(found.mean()) if len(found) else 1.0
    if exact.classes is not None:
        return float((exact.classes == rounded.classes).mean())
    shares = [
        np.abs(rounded.maps[name] - value).mean() / max(np.abs(value).mean(), 1e-12)
        for name, value in exact.maps.items()
    ]
    return 1 - float(np.mean(shares))
