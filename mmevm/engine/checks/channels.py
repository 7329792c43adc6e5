"""Comparison of the channels of images with what normalises and augments them, before a model is built."""

from collections.abc import Iterable, Mapping
from typing import Any

from mmengine.registry import MODELS

from mmevm.engine.checks.datasets import is_kind, leaves
from mmevm.engine.options import parts
from mmevm.errors import UsageError
from mmevm.registry import type_name

_REVERSING = ('bgr_to_rgb', 'rgb_to_bgr')
_COLOURS = {
    'ColorJitter',
    'ColorTransform',
    'Lighting',
    'PhotoMetricDistortion',
    'RandomGrayscale',
    'YOLOXHSVRandomAug',
}
# Named sets of policies have colours, too.
_POLICIES = {'AutoAugment', 'RandAugment'}


def image_channels(cfg: Any) -> int:
    """Return how many channels the images of a config's model have."""
    model = cfg.get('model') or {}
    part = model.get('backbone') or model
    return next((part[key] for key in ('in_channels', 'in_chans') if isinstance(part.get(key), int)), 3)


def preprocessor(cfg: Any) -> Mapping[str, Any]:
    """Return the settings of a config's data preprocessor: the model's, or as in MMEngine's Runner those beside it."""
    return (cfg.get('model') or {}).get('data_preprocessor') or cfg.get('data_preprocessor') or {}


def check_channels(cfg: Any, phases: Iterable[str]) -> None:
    """Compare the model's channels with the statistics of its preprocessor, and with the steps that need colours.

    Args:
        cfg (Config): A complete config.
        phases (Iterable[str]): The phases that will run.

    Raises:
        UsageError: They do not fit.
    """
    channels = image_channels(cfg)
    settings = preprocessor(cfg)
    given = {name: settings.get(name) for name in ('mean', 'std')}
    lengths = {name: len(value) for name, value in given.items() if isinstance(value, list | tuple)}
    is_mmengines = is_kind(MODELS, settings, cfg.get('default_scope'), 'ImgDataPreprocessor')
    allowed = {1, channels} & {1, 3} if is_mmengines else {1, channels}
    if not set(lengths.values()) <= allowed:
        numbers = ' or '.join(map(str, sorted(allowed)))
        found = ' and '.join(f'{name} {length}' for name, length in lengths.items())
        raise UsageError(
            f'The model takes images of {channels} channels (in_channels); data_preprocessor must have {numbers} '
            f'values of mean and std, and has {found}. One value is for all channels.'
        )
    if channels == 3:
        return
    for name in _REVERSING:
        # The others reverse three channels, and leave images of other channels alone.
        if settings.get(name) and cfg.get('default_scope') == 'mmdet':
            raise UsageError(
                f'data_preprocessor.{name}=True takes images of 3 channels, and the model has in_channels={channels}. '
                'Set it to False.'
            )
    for leaf in leaves(cfg, phases):
        for _, step in parts(leaf.settings.get('pipeline'), 'pipeline'):
            has_policy = type_name(step) in _POLICIES and isinstance(step.get('policies'), str)
            if type_name(step) in _COLOURS or has_policy:
                raise UsageError(
                    f'The pipeline of {leaf.key} has the step {type_name(step)}, which takes images of 3 channels, and '
                    f'the model has in_channels={channels}. Remove it.'
                )
