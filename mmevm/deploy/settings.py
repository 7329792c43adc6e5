"""What a config says about a model's images and classes, as the metadata of an exported file."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mmengine.registry import DATASETS

from mmevm.deploy.predictor import to_size
from mmevm.engine.checks.class_lists import stated_classes
from mmevm.engine.checks.datasets import leaves, resolve
from mmevm.errors import UsageError
from mmevm.registry import type_name


def describe_input(cfg: Any, needs_statistics: bool, size: Sequence[int] | None = None) -> dict[str, Any]:
    """Return what is done to an image before the model sees it.

    Args:
        cfg (Config): A config.
        needs_statistics (bool): Refuse a config that does not say how images are normalised.
        size (Sequence[int], optional): Height and width of the model's images, if they are fixed.

    Returns:
        dict: ``dtype``, ``layout``, ``color`` (order of the channels), ``range`` (of the pixels that mean and standard
        deviation are for), ``mean``, ``std`` and ``resize`` (as far as a predictor knows the transforms).

    Raises:
        UsageError: As ``needs_statistics`` says.
    """
    preprocessor = {**(cfg.get('data_preprocessor') or {}), **(cfg.model.get('data_preprocessor') or {})}
    mean: Any = preprocessor.get('mean')
    std: Any = preprocessor.get('std')
    if needs_statistics and (mean is None or std is None):
        raise UsageError('--with-preprocessing needs mean and std in the data_preprocessor of the config.')
    if mean is not None and len(mean) == 1:
        mean, std = list(mean) * 3, list(std) * 3
    rgb = preprocessor.get('bgr_to_rgb') or preprocessor.get('to_rgb')
    return {
        'dtype': 'float32',
        'layout': 'NCHW',
        'color': 'RGB' if rgb or mean is None else 'BGR',  # images are read as BGR
        'range': [0, 255],
        'mean': None if mean is None else [float(value) for value in mean],
        'std': None if std is None else [float(value) for value in std],
        'resize': to_size(_resizing(cfg), size) if size else _resizing(cfg),
    }


def _resizing(cfg: Any) -> list[dict[str, Any]]:
    """Return the resizing, cropping and padding of the test pipeline.

    'pad' is the least height and width (None: those of a square), which are then rounded up to multiples of 'divisor'.
    """
    dataset: Any = next((leaf.settings for leaf in leaves(cfg, ('test',))), {})
    steps: list[dict[str, Any]] = []
    for step in dataset.get('pipeline') or cfg.get('test_pipeline') or ():
        kind = type_name(step)
        if kind == 'Resize' and step.get('scale'):
            scale = step['scale']
            scale = [scale, scale] if isinstance(scale, int) else list(scale)
            steps.append({'scale': scale, 'keep_ratio': bool(step.get('keep_ratio'))})
        elif kind == 'ResizeEdge':
            steps.append({'edge': step.get('edge', 'short'), 'size': step['scale']})
        elif kind == 'CenterCrop':
            crop = step['crop_size']
            steps.append({'crop': [crop, crop] if isinstance(crop, int) else list(crop)})
        elif kind == 'Pad':
            value = step.get('pad_val', 0)
            value = value.get('img', 0) if isinstance(value, Mapping) else value
            value = [value] * 3 if isinstance(value, int | float) else list(value)
            # The config has width and height.
            least = None if step.get('pad_to_square') else list(step.get('size') or (0, 0))[::-1]
            steps.append({'pad': least, 'divisor': step.get('size_divisor') or 1, 'value': value})
        if steps and kind in ('Resize', 'ResizeEdge'):
            steps[-1] |= {
                'interpolation': step.get('interpolation', 'bilinear'),
                'antialias': step.get('backend', 'cv2') == 'pillow',
            }
    return steps


def find_classes(cfg: Any, meta: Mapping[str, Any]) -> list[str] | None:
    """Return the names of a model's classes: those in a checkpoint's ``meta``, or else those of the test dataset."""
    stored = meta.get('dataset_meta')
    names: Any = None
    if isinstance(stored, Mapping):
        names = stored.get('classes', stored.get('CLASSES'))
    for leaf in leaves(cfg, ('test',)):
        if names is None:
            names = stated_classes(leaf)[1]
        if names is None:
            kind = resolve(DATASETS, leaf.settings.get('type'), cfg.get('default_scope'))
            names = getattr(kind, 'METAINFO', {}).get('classes')
    return [str(name) for name in names] if isinstance(names, Iterable) and not isinstance(names, str) else None
