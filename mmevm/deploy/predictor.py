"""Predictions of exported models with ONNX Runtime and NumPy: no torch, no OpenMMLab."""

import json
import os
from collections.abc import Iterator, Sequence, ValuesView
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mmevm.deploy.drawing import draw_texts, tint
from mmevm.deploy.images import Image, image_files, read_image
from mmevm.deploy.pixels import enlarge, paste_mask, resize, resize_nearest
from mmevm.version import __version__

_PACKAGE = Path(__file__).resolve().parents[1]
_LINEAR = {'interpolation': 'bilinear', 'antialias': False}

# What each task's files give.
_OUTPUTS: dict[str, tuple[set[str], ...]] = {
    'classification': ({'scores'}, {'logits'}),
    'detection': ({'boxes', 'scores', 'labels'},),
    'segmentation': ({'classes'}, {'logits'}),
    'backbone': (),
}
# What tells the steps apart that change an image.
_STEPS: tuple[set[str], ...] = (
    {'scale'},
    {'factor'},
    {'edge', 'size'},
    {'within'},
    {'crop'},
    {'pad', 'value'},
)


@dataclass
class Prediction:
    """What a model finds in an image; coordinates and maps are in the image's own pixels.

    Attributes:
        image (np.ndarray): The image, uint8 RGB [H, W, 3].
        task (str): 'classification', 'detection', 'segmentation' or 'backbone'.
        names (list[str]): Names of the classes, empty if the file has none.
        scores (np.ndarray): Of every class [classes], or of every object [N].
        labels (np.ndarray): Of every object [N], or, best first, of every class.
        boxes (np.ndarray): Corners of objects, float32 [N, 4].
        masks (np.ndarray): Cells of objects, bool [N, H, W].
        classes (np.ndarray): The class of every pixel, int32 [H, W].
        maps (dict[str, np.ndarray]): Maps of a backbone, or raw outputs, by name.
    """

    image: np.ndarray
    task: str
    names: list[str]
    scores: Any = None
    labels: Any = None
    boxes: Any = None
    masks: Any = None
    classes: Any = None
    maps: dict[str, np.ndarray] = field(default_factory=dict)

    def name(self, label: int) -> str:
        """Return the name of a class, or its number."""
        return self.names[label] if label < len(self.names) else str(label)

    def draw(self, score: float = 0.3) -> np.ndarray:
        """Draw what was found over the image; needs Pillow for texts.

        Args:
            score (float): Smallest score of the objects that are drawn.

        Returns:
            np.ndarray: uint8 RGB [H, W, 3].
        """
        image = self.image.copy()
        if self.classes is not None:
            for label in np.unique(self.classes):
                tint(image, self.classes == label, label)
        if self.task == 'classification':
            best = self.labels[0]
            return draw_texts(image, np.zeros((1, 4)), [f'{self.name(best)} {self.scores[best]:.2f}'], [best])
        if self.boxes is None:
            return image
        shown = np.flatnonzero(self.scores >= score)
        for i in shown if self.masks is not None else ():
            tint(image, self.masks[i], self.labels[i])
        texts = [f'{self.name(self.labels[i])} {self.scores[i]:.2f}' for i in shown]
        return draw_texts(image, self.boxes[shown], texts, self.labels[shown].tolist())


class Predictor:
    """An exported model.

    Args:
        path (str | os.PathLike): A file of ``tools/export.py``.
        threads (int, optional): Threads of ONNX Runtime; by default it decides.
        kernels (bool): Scan with mmevm's kernels, where :func:`onnxruntime_library` has them.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is damaged, or not of ``tools/export.py``.
    """

    def __init__(self, path: str | os.PathLike, threads: int | None = None, kernels: bool = True) -> None:
        import onnxruntime

        if not os.path.isfile(path):
            raise FileNotFoundError(f'No exported model: {os.path.abspath(path)}')
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or 0
        options.log_severity_level = 3
        if kernels and _libraries():
            options.register_custom_ops_library(onnxruntime_library())
        try:
            self.session = onnxruntime.InferenceSession(path, options, providers=['CPUExecutionProvider'])
        except Exception as error:  # of any kind that ONNX Runtime has for a file that it cannot run
            reason = str(error).splitlines()[0]
            raise ValueError(f'{path} cannot be loaded; it is damaged, or no ONNX file: {reason}') from error
        metadata = self.session.get_modelmeta().custom_metadata_map
        if not {'task', 'input', 'mmevm_version'} <= metadata.keys():
            raise ValueError(f'{path} was not written by tools/export.py of mmevm: it does not say what its images are')
        self.metadata = metadata
        self.task: str = metadata['task']
        try:
            self.names: list[str] = json.loads(metadata.get('classes', '[]'))
            self.input: dict[str, Any] = json.loads(metadata['input'])
            self.options: dict[str, Any] = json.loads(metadata.get('options', '{}'))
        except json.JSONDecodeError as error:
            raise ValueError(f'{path} cannot be loaded; its metadata are damaged: {error}') from error
        self.outputs = [output.name for output in self.session.get_outputs()]
        if fault := self._fault():
            versions = f'mmevm {metadata["mmevm_version"]} wrote it, and this is {__version__}'
            raise ValueError(f'{path} cannot be loaded: {fault}; {versions}. Export the model again.')

    def _fault(self) -> str | None:
        """Return what the metadata have that this version cannot know."""
        needed = _OUTPUTS.get(self.task)
        if needed is None:
            return f'its task is {self.task!r}, not one of {", ".join(_OUTPUTS)}'
        if needed and not any(names <= {*self.outputs} for names in needed):
            return f'{self.task} has other outputs than {", ".join(self.outputs)}'
        known = set(self.input if isinstance(self.input, dict) else ())
        if absent := {'dtype', 'color', 'mean', 'std', 'resize'} - known:
            return f'how images are prepared lacks {", ".join(sorted(absent))}'
        steps = self.input['resize']
        if not isinstance(steps, list | None):
            return f'the steps that change an image are {steps!r:.100}, not a list'
        for step in steps or ():
            if not isinstance(step, dict) or not any(keys <= step.keys() for keys in _STEPS):
                return f'it has the unknown step {step!r:.100}'
        return None

    def __call__(self, images: Image | list[Any] | tuple[Any, ...] | Iterator[Image]) -> Any:
        """Run the model.

        Args:
            images (path, array, or a list, tuple or iterator of them): An image file; a folder, all images in which
                are taken; or pixels, uint8 RGB [H, W, 3] or grey [H, W], also as a tensor or an image of Pillow.

        Returns:
            Prediction or list[Prediction]: One for a single image; for a folder or a sequence, a list.

        Raises:
            FileNotFoundError: There is no such file, or no image in the folder.
            ValueError: An image cannot be read, or an array is of another form.
        """
        if isinstance(images, str | os.PathLike) and os.path.isdir(images):
            return [self.predict(path) for path in image_files(images)]
        if isinstance(images, Sequence | Iterator | ValuesView) and not isinstance(images, str | bytes):
            return [self.predict(image) for image in images]
        return self.predict(images)

    def predict(self, image: Image) -> Prediction:
        """Run the model on one image; see :meth:`__call__`."""
        pixels = read_image(image)
        data, scale = self.prepare(pixels)
        values = dict(zip(self.outputs, self.session.run(None, {self.session.get_inputs()[0].name: data}), strict=True))
        prediction = Prediction(pixels, self.task, self.names)
        finish = getattr(self, f'_finish_{self.task}')
        finish(prediction, {name: value[0] for name, value in values.items()}, scale)
        return prediction

    def prepare(self, pixels: np.ndarray) -> tuple[np.ndarray, tuple[float, float]]:
        """Resize, crop, pad and normalise an image as the config does, to the model's size if that is fixed.

        Args:
            pixels (np.ndarray): uint8 RGB [H, W, 3].

        Returns:
            np.ndarray: The model's input [1, 3, H', W'].
            tuple[float, float]: Its pixels per pixel of the image, across and down, by resizing alone.

        Raises:
            ValueError: The file does not say how.
        """
        steps, size = self.input['resize'], self.session.get_inputs()[0].shape[2:]
        if steps is None:
            raise ValueError(
                'The file does not say how images are prepared, since its config has steps that no predictor knows. '
                'Prepare them as the config does, and run the file with onnxruntime.'
            )
        if all(isinstance(side, int) for side in size):
            steps = to_size(steps, size)
        image, scale = pixels, (1.0, 1.0)
        for step in steps:
            if 'pad' in step:
                image = _pad(image, step)
            elif 'crop' in step:
                image = _crop(image, step['crop'])
            else:
                height, width = image.shape[:2]
                image = _resize(image, step)
                scale = scale[0] * image.shape[1] / width, scale[1] * image.shape[0] / height
        if self.input['color'] == 'BGR':
            image = image[..., ::-1]
        if self.input['dtype'] != 'uint8':
            image = image.astype(np.float32)
            if self.input['mean'] is not None:
                image = (image - np.array(self.input['mean'], np.float32)) / np.array(self.input['std'], np.float32)
        return np.ascontiguousarray(image.transpose(2, 0, 1)[None]), scale

    def _finish_classification(self, prediction: Prediction, values: dict, scale: Any) -> None:
        (scores,) = values.values()
        prediction.scores, prediction.labels = scores, np.argsort(-scores)

    def _finish_detection(self, prediction: Prediction, values: dict, scale: Any) -> None:
        height, width = prediction.image.shape[:2]
        found = values['labels'] >= 0
        boxes = values['boxes'][found] / np.array([*scale, *scale], np.float32)
        boxes = np.clip(boxes, 0, np.array([width, height, width, height], np.float32))
        prediction.boxes, prediction.scores, prediction.labels = boxes, values['scores'][found], values['labels'][found]
        if 'masks' in values:
            threshold, stride = self.options['mask_threshold'], self.options.get('mask_stride')
            masks = np.zeros((len(boxes), height, width), bool)
            for mask, grid, box in zip(masks, values['masks'][found], boxes, strict=True):
                spread = enlarge(grid, stride, scale, height, width) if stride else paste_mask(grid, box, height, width)
                mask[:] = spread >= threshold
            prediction.masks = masks

    def _finish_segmentation(self, prediction: Prediction, values: dict, scale: Any) -> None:
        height, width = prediction.image.shape[:2]
        rows, cols = round(height * scale[1]), round(width * scale[0])  # without padding
        values = {name: value[..., :rows, :cols] for name, value in values.items()}
        if 'logits' in values:
            logits = resize(values['logits'].transpose(1, 2, 0), height, width)
            prediction.maps = {'logits': logits.transpose(2, 0, 1)}
            threshold = self.options.get('threshold', 0.0)
            classes = logits.argmax(axis=2) if logits.shape[2] > 1 else logits[..., 0] > threshold
        else:
            classes = resize_nearest(values['classes'], height, width)
        prediction.classes = classes.astype(np.int32)

    def _finish_backbone(self, prediction: Prediction, values: dict, scale: Any) -> None:
        prediction.maps = values


def load(path: str | os.PathLike, threads: int | None = None, kernels: bool = True) -> Predictor:
    """Load an exported model; see :class:`Predictor`."""
    return Predictor(path, threads, kernels)


def onnxruntime_library() -> str:
    """Return the library with mmevm's CPU kernels for ONNX Runtime 1.17 and newer.

    ``session_options.register_custom_ops_library(onnxruntime_library())`` lets it compute the scans of exported models
    in place of their functions of standard operators.

    Raises:
        FileNotFoundError: It is not built.
    """
    found = _libraries()
    if not found:
        raise FileNotFoundError(
            f'The library for ONNX Runtime is not built (no _onnxruntime*.so in {_PACKAGE}); exported models run '
            'without it, more slowly. Install mmevm with MMEVM_BUILD_EXT=1 and read the messages.'
        )
    return str(found[0])


def _libraries() -> list[Path]:
    return sorted(_PACKAGE.glob('_onnxruntime*.so'))


def to_size(
    steps: Sequence[dict[str, Any]], size: Sequence[int], value: Sequence[int] | None = None
) -> list[dict[str, Any]]:
    """Append what brings any image to one size: padding if the steps pad or ``value`` is given, else stretching.

    An image of that size already stays as it is.
    """
    value = next((step['value'] for step in steps if 'pad' in step), value)
    if value is None:
        return [*steps, {'scale': [size[1], size[0]], 'keep_ratio': False, **_LINEAR}]
    kept = list(steps)
    while kept and 'pad' in kept[-1]:
        kept.pop()
    return [*kept, {'within': list(size), **_LINEAR}, {'pad': list(size), 'value': value}]


def _resize(image: np.ndarray, step: dict[str, Any]) -> np.ndarray:
    height, width = image.shape[:2]
    if 'within' in step:
        factor = min(step['within'][0] / height, step['within'][1] / width)
        new = int(height * factor + 0.5), int(width * factor + 0.5)
    elif 'edge' in step:
        side = step['size']
        across = (width < height) == (step['edge'] == 'short')  # whether the width gets the given size
        new = (int(side * height / width), side) if across else (side, int(side * width / height))
    else:
        factors = step.get('factor')
        scale = [int(width * factors[0] + 0.5), int(height * factors[1] + 0.5)] if factors else step['scale']
        new = scale[1], scale[0]
        if step.get('keep_ratio'):
            factor = min(max(scale) / max(height, width), min(scale) / min(height, width))
            new = int(height * factor + 0.5), int(width * factor + 0.5)
    return resize(
        image, max(new[0], 1), max(new[1], 1), step.get('interpolation', 'bilinear'), step.get('antialias', False)
    )


def _pad(image: np.ndarray, step: dict[str, Any]) -> np.ndarray:
    least, divisor = step['pad'] or [max(image.shape[:2])] * 2, step.get('divisor', 1)
    sides = [-(-max(pair) // divisor) * divisor for pair in zip(least, image.shape, strict=False)]
    padded = np.empty((*sides, 3), np.uint8)
    padded[:] = step['value'][::-1]  # the config's images are BGR
    padded[: image.shape[0], : image.shape[1]] = image
    return padded


def _crop(image: np.ndarray, size: Sequence[int]) -> np.ndarray:
    top, left = (max(round((side - crop) / 2), 0) for side, crop in zip(image.shape, size, strict=False))
    return image[top : top + size[0], left : left + size[1]]
