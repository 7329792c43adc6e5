"""What a config says about a model's images and classes, as the metadata of an exported file."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from mmengine.registry import DATASETS

from mmevm.deploy.pipeline import read_steps
from mmevm.deploy.predictor import to_size
from mmevm.engine.checks.channels import image_channels, preprocessor
from mmevm.engine.checks.class_counts import class_counts
from mmevm.engine.checks.class_lists import stated_classes
from mmevm.engine.checks.datasets import leaves, resolve
from mmevm.errors import UsageError

_REMEDIES = {
    'The checkpoint': 'Use a checkpoint of this config, or the config of this checkpoint.',
    'The config': "Name the model's classes in the metainfo of its test dataset.",
}


def describe_input(
    cfg: Any, needs_statistics: bool, size: Sequence[int] | None = None, backbone: bool = False
) -> dict[str, Any]:
    """Return what is done to an image before the model sees it.

    Args:
        cfg (Config): A config.
        needs_statistics (bool): Refuse a config that does not say how images are normalised.
        size (Sequence[int], optional): Height and width of the model's images, if they are fixed.
        backbone (bool): For a backbone alone, whose images users prepare as they like; ``resize`` may then be ``None``.

    Returns:
        dict: ``dtype``, ``layout``, ``color`` (order of the channels), ``range`` (of the pixels that mean and standard
        deviation are for), ``mean``, ``std`` and ``resize``, the steps of the test pipeline that change an image.

    Raises:
        UsageError: As ``needs_statistics`` says; or the pipeline has steps that a predictor does not know.
    """
    settings = preprocessor(cfg)
    mean: Any = settings.get('mean')
    std: Any = settings.get('std')
    channels = image_channels(cfg)
    if channels != 3 or (mean is not None and len(mean) not in (1, 3)):
        count = channels if channels != 3 else len(mean)
        raise UsageError(
            f'Exported models take images of 3 channels; the config is for {count} and cannot be exported.'
        )
    pipeline = _test_pipeline(cfg)
    steps: list[dict[str, Any]] | None
    try:
        steps = read_steps(pipeline)
    except UsageError as error:
        if not backbone:
            raise
        print(f'      the file will not say how images are prepared. {error}', flush=True)
        steps = None
    if needs_statistics and (mean is None or std is None):
        raise UsageError('--with-preprocessing needs mean and std in the data_preprocessor of the config.')
    if mean is not None and len(mean) == 1:
        mean, std = list(mean) * 3, list(std) * 3
    rgb = any(settings.get(key) for key in ('bgr_to_rgb', 'to_rgb', 'rgb_to_bgr'))  # all reverse the channels
    if size and steps is not None:
        steps = to_size(steps, size, _padding(settings, rgb))
    return {
        'dtype': 'float32',
        'layout': 'NCHW',
        # Pipelines read images as BGR; without a preprocessor it is a bare backbone's, which takes RGB.
        'color': 'BGR' if settings and not rgb else 'RGB',
        'range': [0, 255],
        'mean': None if mean is None else [float(value) for value in mean],
        'std': None if std is None else [float(value) for value in std],
        'resize': steps,
    }


def _padding(settings: Mapping[str, Any], rgb: bool) -> list[int] | None:
    """Return the BGR pixel that a data preprocessor's padding of normalised images stands for, if it pads them."""
    testing = settings.get('test_cfg') or {}  # mmseg pads by these when testing; its other settings are for training
    if settings.get('pad_size_divisor', 1) == 1 and not (testing.get('size') or testing.get('size_divisor')):
        return None
    value = settings.get('pad_value', settings.get('pad_val', 0))
    pixel = np.asarray(settings.get('mean') or 0) + value * np.asarray(settings.get('std') or 1)
    colours = np.broadcast_to(pixel.round().clip(0, 255).astype(int), 3)
    return (colours[::-1] if rgb else colours).tolist()


def _test_pipeline(cfg: Any) -> Sequence[Any]:
    """Return the pipeline of the test data, or else of the validation data; nothing if there are none."""
    for split in ('test', 'val'):
        for leaf in leaves(cfg, (split,)):
            if pipeline := leaf.settings.get('pipeline'):
                return pipeline
        if pipeline := cfg.get(f'{split}_pipeline'):
            return pipeline
    print('      the config has no test pipeline: the file takes images at their own size', flush=True)
    return ()


def find_classes(cfg: Any, meta: Mapping[str, Any]) -> list[str] | None:
    """Return the names of a model's classes: those in a checkpoint's ``meta``, or else those of the test dataset.

    Names that a dataset has by itself are left out where the model has another number of classes.

    Raises:
        UsageError: The names in the checkpoint or in the config are not as many as the model's classes.
    """
    names, source = stored_names(meta), 'The checkpoint'
    for leaf in (*leaves(cfg, ('test',)), *leaves(cfg, ('val',))):
        if names is None:
            names, source = stated_classes(leaf)[1], 'The config'
        if names is None:
            kind = resolve(DATASETS, leaf.settings.get('type'), cfg.get('default_scope'))
            names, source = getattr(kind, 'METAINFO', {}).get('classes'), ''
    if not isinstance(names, Iterable) or isinstance(names, str):
        return None
    names = [str(name) for name in names]
    fault = names_fault(cfg, names)
    if fault and source:
        raise UsageError(f'{source} {fault}. {_REMEDIES[source]}')
    if fault:
        print(f'      no class names in the file: the test dataset {fault}', flush=True)
    return None if fault else names


def stored_names(meta: Mapping[str, Any]) -> Any:
    """Return the names of classes in a checkpoint's ``meta``."""
    stored = meta.get('dataset_meta')
    return stored.get('classes', stored.get('CLASSES')) if isinstance(stored, Mapping) else None


def names_fault(cfg: Any, names: Sequence[str]) -> str | None:
    """Return what is wrong if names are not as many as the classes of a config's model."""
    model = cfg.get('model') or {}
    if {'language_model', 'text_encoder'} & model.keys():  # their classes are texts
        return None
    counts = set(class_counts(cfg).values())
    heads = model.get('decode_head') or {}
    head = heads[-1] if isinstance(heads, list | tuple) else heads
    if 1 in (head.get('out_channels'), head.get('num_classes')):
        counts.add(2)  # one map tells two classes apart
    if not counts or len(names) in counts:
        return None
    some = ', '.join(names[:3])
    number = ' or '.join(map(str, sorted(counts)))
    return f"has {len(names)} names of classes ({some}{', …' if len(names) > 3 else ''}) for the model's {number}"
