"""Comparison of the channels of images with what normalises and augments them, before a model is built."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from mmengine.registry import MODELS, TRANSFORMS

from mmevm.engine.checks.datasets import is_kind, loaders, resolve
from mmevm.engine.options import parts
from mmevm.errors import UsageError
from mmevm.registry import LIBRARIES, type_name

_PREPROCESSORS = {'mmdet': 'DetDataPreprocessor', 'mmpretrain': 'ClsDataPreprocessor', 'mmseg': 'SegDataPreProcessor'}
_REVERSING = ('bgr_to_rgb', 'rgb_to_bgr')
_COLOURS = {
    'AutoContrast',
    'Color',
    'ColorJitter',
    'ColorTransform',
    'Contrast',
    'Equalize',
    'Lighting',
    'PhotoMetricDistortion',
    'RandomErasing',
    'RandomGrayscale',
    'ShearX',
    'ShearY',
    'TranslateX',
    'TranslateY',
    'YOLOXHSVRandomAug',
}
# They copy images into one of three channels, or of none.
_CANVASES = {'CachedMixUp', 'CachedMosaic', 'MixUp', 'Mosaic'}
# Options with a value for each channel, and their defaults.
_PIXELS = {
    'CutOut': ('fill_in', (0, 0, 0)),
    'Expand': ('mean', (0, 0, 0)),
    'Pad': ('pad_val', 0),
    'RandomCutOut': ('fill_in', (0, 0, 0)),
}
_LOADED = {'color': 3, 'grayscale': 1}
# Steps that may change the number of channels; so may those that are not the libraries' own.
_CHANGING = {'Albu', 'Albumentations', 'ConcatCDInput', 'RGB2Gray'}
# Named sets of policies have colours, too.
_POLICIES = {'AutoAugment', 'RandAugment'}


def image_channels(cfg: Any) -> int:
    """Return how many channels the images of a config's model have."""
    model = cfg.get('model') or {}
    part = model.get('backbone') or model
    return next((part[key] for key in ('in_channels', 'in_chans') if isinstance(part.get(key), int)), 3)


def packed_channels(cfg: Any) -> int | None:
    """Return how many channels a pipeline has to pack; ``None`` if the model's preprocessor may change them."""
    library = cfg.get('default_scope')
    kind = type_name(preprocessor(cfg), _PREPROCESSORS.get(library))
    return image_channels(cfg) if library in _PREPROCESSORS and kind == _PREPROCESSORS[library] else None


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
    for where, pipeline in _pipelines(cfg, phases):
        for _, step in parts(_after_changes(cfg, pipeline), ''):
            if fault := _step_fault(step, channels):
                raise UsageError(f'The pipeline of {where} has the step {type_name(step)}, which {fault}')
        _check_loading(cfg, where, pipeline, channels)


def _pipelines(cfg: Any, phases: Iterable[str]) -> Iterator[tuple[str, Any]]:
    """Yield the pipelines of the phases' datasets and their wrappers, and those that replace them later."""
    phases = tuple(phases)
    for _, key, loader in loaders(cfg, phases):
        for where, settings in parts(loader['dataset'], f'{key}.dataset'):
            if settings.get('pipeline'):
                yield where, settings['pipeline']
    for where, hook in parts(cfg.get('custom_hooks') if 'train' in phases else None, 'custom_hooks'):
        if hook.get('switch_pipeline'):
            yield where, hook['switch_pipeline']


def _after_changes(cfg: Any, pipeline: Any) -> Any:
    """Return the steps of a pipeline behind the last one that may change the number of channels."""
    last = 0
    for index, step in enumerate(pipeline, 1):
        if 'type' in step and _may_change_channels(step, cfg.get('default_scope')):
            last = index
    return pipeline[last:]


def _may_change_channels(step: Mapping[str, Any], scope: str | None) -> bool:
    name, kind = type_name(step), resolve(TRANSFORMS, step['type'], scope)
    if kind is None:
        return name not in {*_COLOURS, *_POLICIES, *_CANVASES, *_PIXELS}
    return name in _CHANGING or kind.__module__.partition('.')[0] not in ('mmcv', *LIBRARIES)


def _step_fault(step: Mapping[str, Any], channels: int) -> str | None:
    """Return why a step does not take images of other than three channels."""
    name = type_name(step)
    has_policy = name in _POLICIES and isinstance(step.get('policies'), str)
    if name in _COLOURS or has_policy or (name in _CANVASES and channels > 1):
        return f'takes images of 3 channels, and the model has in_channels={channels}. Remove it.'
    if step.get('backend') == 'pillow' and channels != 1:
        return f"resizes by Pillow (backend='pillow'), and the model has in_channels={channels}. Set backend='cv2'."
    if name == 'Pad' and channels > 4:
        return f'takes images of up to 4 channels, and the model has in_channels={channels}. Pad in data_preprocessor.'
    option, value = _PIXELS.get(name or '', ('', None))
    value = step.get(option, value)
    value = value.get('img', 0) if isinstance(value, Mapping) else value
    if 'pad_val' in (step.get('hparams') or {}):  # of the policies
        option, value = 'hparams.pad_val', step['hparams']['pad_val']
    if isinstance(value, list | tuple) and len(value) != channels:
        return f'has {len(value)} values in {option}, and the model has in_channels={channels}. Set as many.'
    return None


def _check_loading(cfg: Any, where: str, pipeline: Any, channels: int) -> None:
    if any('type' in step and _may_change_channels(step, cfg.get('default_scope')) for step in pipeline):
        return
    remedy = "'grayscale'" if channels == 1 else "'unchanged', and imdecode_backend='tifffile' for TIFF files"
    for step in pipeline:
        colours = step.get('color_type', 'color')
        loaded = _LOADED.get(colours.removesuffix('_ignore_orientation'), channels)
        is_decoded = type_name(step) == 'LoadImageFromFile' and step.get('imdecode_backend') != 'tifffile'
        if is_decoded and loaded != channels:
            raise UsageError(
                f'LoadImageFromFile in the pipeline of {where} gives images of {loaded} channels '
                f'(color_type={colours!r}), and the model has in_channels={channels}. Set color_type={remedy}.'
            )
