"""Samples of datasets: their files, their class ids, and pipelines whose errors name them."""

import logging
import re
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mmengine.logging import print_log
from torch import Tensor

from mmevm.engine.checks.class_readers import sample_labels
from mmevm.engine.checks.datasets import is_remote
from mmevm.engine.checks.image_files import find_fault, is_known_format
from mmevm.errors import UsageError

_IMAGE_KEY = re.compile(r'(img|image|seg_map|depth_map)_path\d?')
_SKIP = 'Replace it or remove it from the dataset, or leave such images out with --skip-broken.'


class SampleError(UsageError):
    """A sample that cannot be used.

    torch raises the errors of data loading processes again with their traceback as the message; this class extracts
    the message.
    """

    #: The other processes of a distributed run do not raise it.
    in_one_process = True

    def __init__(self, message: str) -> None:
        super().__init__(message.rpartition(f'{type(self).__name__}: ')[2].strip())


@dataclass(frozen=True)
class Checks:
    """What to do about samples that cannot be used.

    Attributes:
        skip (bool): Whether they are left out instead of an error.
        classes (int | None): Upper bound of the class ids of training samples.
        is_training (bool): Whether the samples are trained on. Those of evaluations cannot be replaced by others, even
            if the dataset would, as MMPretrain's do.
        channels (int | None): Channels of the images that the model takes; ``None`` if unknown.
    """

    skip: bool = False
    classes: int | None = None
    is_training: bool = False
    channels: int | None = None


def sample_files(sample: Mapping) -> Iterator[tuple[str, str]]:
    """Yield the kind and the path of the local image files of a sample: images, label maps, frames of a video."""
    for key, value in sample.items():
        if key == 'images' and isinstance(value, list | tuple):
            for frame in value:
                yield from sample_files(frame if isinstance(frame, Mapping) else {})
        elif _IMAGE_KEY.fullmatch(str(key)):
            for path in value if isinstance(value, list | tuple) else [value]:
                if isinstance(path, str) and '://' not in path:
                    yield key, path


class NamedErrors:
    """A pipeline whose errors name the files of the sample.

    Args:
        pipeline (Callable): The wrapped pipeline; attributes are passed through.
        checks (Checks): What to do about samples that cannot be used.
        ignore_index (int): The value of pixels without a class.
        left_out (int): How many images the dataset was reduced by.
    """

    def __init__(self, pipeline: Any, checks: Checks, ignore_index: int = 255, left_out: int = 0) -> None:
        self.pipeline, self.checks, self.ignore_index, self.left_out = pipeline, checks, ignore_index, left_out

    def __getattr__(self, name: str) -> Any:
        if name.startswith('__') or name == 'pipeline':
            raise AttributeError(name)
        return getattr(self.pipeline, name)

    def __call__(self, sample: dict) -> dict | None:
        """Run the pipeline; return its result, or ``None`` for an image to be left out of training."""
        files = list(sample_files(sample))
        if self.checks.is_training:
            require_trainable(sample, files, self.checks, self.pipeline)
        try:
            result = self.pipeline(sample)
        except Exception as error:
            unreadable = self._unreadable(files, error)
            if unreadable and self.checks.skip and self.checks.is_training:
                # The dataset then draws another sample.
                print_log(f'Left out: {unreadable}', logger='current', level=logging.WARNING)
                return None
            if unreadable:
                raise SampleError(f'Cannot read {unreadable}. {_SKIP}') from error
            if hasattr(error, 'add_note'):  # from Python 3.11 on
                error.add_note(f'while preparing {", ".join(path for _, path in files) or "a sample without files"}')
            raise
        if self.checks.is_training and self.checks.classes is not None:
            self._require_known_pixels(result, files, self.checks.classes)
        if self.checks.channels is not None:
            require_channels(result, files, self.checks.channels)
        return result

    def _unreadable(self, files: list[tuple[str, str]], error: Exception) -> str | None:
        """Return the file that caused an error, and its fault, or ``None`` if the cause is another."""
        if reads_elsewhere(self.pipeline):
            return None
        for key, path in files:
            fault = find_fault(path, decoder(self.pipeline, key), decode=True)
            if fault and not fault.readable:
                return f'{path}: {fault.reason}'
        unknown = [path for _, path in files if not is_known_format(path)]
        steps = (type(frame.f_locals.get('self')).__name__ for frame, _ in traceback.walk_tb(error.__traceback__))
        if unknown and any(name.startswith('Load') for name in steps):
            return f'{unknown[0]}: {type(error).__name__}: {error}'
        return None

    def _require_known_pixels(self, result: Any, files: list[tuple[str, str]], classes: int) -> None:
        packed: Any = result.get('data_samples') if isinstance(result, Mapping) else None
        if type(packed).__name__ != 'SegDataSample' or 'gt_sem_seg' not in packed:
            return
        pixels = packed.gt_sem_seg.data
        beyond = pixels[(pixels >= classes) & (pixels != self.ignore_index)]
        if beyond.numel():
            raise SampleError(
                f'{files[-1][1]} has the class id {int(beyond.max())}; the model has the classes 0 to {classes - 1}.'
            )


def require_trainable(sample: Mapping, files: list[tuple[str, str]], checks: Checks, pipeline: Any) -> None:
    """Raise an error if the model would not be trained on a sample as it is annotated."""
    require_known_class(sample, files, checks.classes)
    if not checks.skip and takes_polygons_alone(pipeline):
        require_polygons(sample, files)


def require_known_class(sample: Mapping, files: list[tuple[str, str]], classes: int | None) -> None:
    """Raise an error if a sample has a class id outside of the model's classes."""
    # In samples with text, the ids count its phrases.
    if classes is None or 'text' in sample:
        return
    for label in sample_labels(sample):
        if not 0 <= label < classes:
            name = files[0][1] if files else 'A sample'
            raise SampleError(f'{name} has the class id {label}; the model has the classes 0 to {classes - 1}.')


def require_channels(result: Any, files: list[tuple[str, str]], channels: int) -> None:
    """Raise an error if an image has another number of channels than the model takes; one grey may stand for three."""
    image = result.get('inputs') if isinstance(result, Mapping) else None
    found = image.shape[0] if isinstance(image, Tensor) and image.ndim == 3 else channels
    if found != channels and (found, channels) != (1, 3):
        raise SampleError(
            f'{files[0][1] if files else "A sample"} has {found} channels after its pipeline, and the model takes '
            f"{channels} (in_channels). The number depends on the file and on LoadImageFromFile's color_type; some "
            'steps drop channels.'
        )


def require_polygons(sample: Mapping, files: list[tuple[str, str]]) -> None:
    """Raise an error if a mask is run-length encoded, which MMDetection ignores with ``poly2mask=False``."""
    for instance in sample.get('instances') or ():
        if isinstance(instance.get('mask'), Mapping) and not instance.get('ignore_flag'):
            raise SampleError(
                f'{files[0][1] if files else "A sample"} has an object with run lengths (RLE) for its mask, which '
                'LoadAnnotations ignores with poly2mask=False. Set poly2mask=True in the training pipelines, or leave '
                'such objects out with --skip-broken.'
            )


def takes_polygons_alone(pipeline: Any) -> bool:
    """Return whether a pipeline loads masks of objects, and ignores those that are not polygons."""
    return any(
        type(step).__name__ == 'LoadAnnotations'
        and getattr(step, 'with_mask', False)
        and not getattr(step, 'poly2mask', True)
        for step in transforms(pipeline)
    )


def transforms(pipeline: Any) -> list[Any]:
    """Return the steps of a pipeline."""
    return list(getattr(pipeline, 'transforms', ()))


def decoder(pipeline: Any, key: str) -> str:
    """Return the decoder of a pipeline's images or label maps."""
    prefix, default = ('LoadAnnotations', 'pillow') if key == 'seg_map_path' else ('LoadImage', 'cv2')
    return _setting(pipeline, prefix, 'imdecode_backend', default)


def colour_type(pipeline: Any) -> str:
    """Return as what a pipeline reads images: 'color', 'unchanged', 'grayscale', …."""
    return _setting(pipeline, 'LoadImage', 'color_type', 'color')


def _setting(pipeline: Any, prefix: str, name: str, default: str) -> str:
    """Return a setting of the first step of a kind."""
    loading = (step for step in transforms(pipeline) if type(step).__name__.startswith(prefix))
    return next((getattr(step, name, default) for step in loading), default)


def reads_elsewhere(pipeline: Any) -> bool:
    """Return whether a step of a pipeline reads from anywhere but the local disk."""
    return any(is_remote(vars(step)) for step in transforms(pipeline) if hasattr(step, '__dict__'))
