"""Comparison of the channels of images with what normalises and augments them, before a model is built."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from mmengine.registry import MODELS, TRANSFORMS

from mmevm.engine.checks.datasets import is_kind, loaders, resolve
from mmevm.engine.options import parts
from mmevm.errors import UsageError
from mmevm.registry import LIBRARIES, package_of, type_name

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
# Grey images are matrices.
_WITH_AXIS = {'CutOut', 'Expand', 'RandomCutOut', 'RandomErasing'}
# Steps that may change the number of channels; so may those that are not the libraries' own.
_CHANGING = {'Albu', 'Albumentations', 'ConcatCDInput', 'RandomGrayscale', 'RGB2Gray'}
# Named sets of policies have colours, too.
_POLICIES = {'AutoAugment', 'RandAugment'}


def image_channels(cfg: Any) -> int:
    """Return how many channels the images of a config's model have, three unless it says otherwise."""
    return _stated_channels(cfg) or 3


def _stated_channels(cfg: Any) -> int | None:
    part = _backbone(cfg)
    found = (part.get(key) for key in ('in_channels', 'in_chans'))
    return next((value for value in found if isinstance(value, int)), None)


def _backbone(cfg: Any) -> Mapping[str, Any]:
    model = cfg.get('model') or {}
    part = model.get('backbone') or model
    return part if isinstance(part, Mapping) else model


def packed_channels(cfg: Any) -> int | None:
    """Return how many channels a pipeline has to end with, or ``None`` if that cannot be told.

    A preprocessor of a user's own may change the number, and a backbone of their own may have another default.
    """
    library = cfg.get('default_scope')
    usual = (_PREPROCESSORS.get(library), 'ImgDataPreprocessor')
    if library not in _PREPROCESSORS or type_name(preprocessor(cfg), usual[0]) not in usual:
        return None
    kind = resolve(MODELS, _backbone(cfg).get('type'), library)
    is_known = package_of(kind) in ('mmevm', *LIBRARIES)
    return _stated_channels(cfg) or (3 if is_known and 'backbone_cfg' not in _backbone(cfg) else None)


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
    if packed_channels(cfg) is None:
        return
    for where, pipeline in _pipelines(cfg, phases):
        last = _after_changes(cfg, pipeline)
        for _, step in parts(last, ''):
            if fault := _step_fault(step, channels, cfg.default_scope):
                raise UsageError(f'The pipeline of {where} has the step {type_name(step)}, which {fault}')
        if len(last) == len(pipeline):
            _check_loading(where, pipeline, channels)


def _pipelines(cfg: Any, phases: Iterable[str]) -> Iterator[tuple[str, Any]]:
    """Yield the pipelines of the phases' datasets and their wrappers, and those that replace them later."""
    phases = tuple(phases)
    for _, key, loader in loaders(cfg, phases):
        for where, settings in parts(loader['dataset'], f'{key}.dataset'):
            if isinstance(settings.get('pipeline'), list | tuple):
                yield where, settings['pipeline']
    for where, hook in parts(cfg.get('custom_hooks') if 'train' in phases else None, 'custom_hooks'):
        if isinstance(hook.get('switch_pipeline'), list | tuple):
            yield where, hook['switch_pipeline']


def _after_changes(cfg: Any, pipeline: Sequence[Any]) -> Sequence[Any]:
    """Return the steps of a pipeline after the last one that may change the number of channels."""
    scope, last = cfg.get('default_scope'), 0
    for index, step in enumerate(pipeline, 1):
        # Steps that apply others count by those; policies are augmentations.
        inner = [part for key, part in parts(step, '') if 'type' in part and '.policies.' not in key]
        if not isinstance(step, Mapping) or any(_may_change_channels(part, scope) for part in inner):
            last = index
    return pipeline[last:]


def _may_change_channels(step: Mapping[str, Any], scope: str | None) -> bool:
    name, kind = type_name(step), resolve(TRANSFORMS, step['type'], scope)
    if kind is None:
        return name not in {*_COLOURS, *_POLICIES, *_CANVASES, *_PIXELS}
    return name in _CHANGING or package_of(kind) not in ('mmcv', *LIBRARIES)


def _step_fault(step: Mapping[str, Any], channels: int, scope: str) -> str | None:
    """Return why a step cannot handle this number of channels, or ``None``."""
    name, has = type_name(step) or '', f'and the model has in_channels={channels}'
    # Without a list of policies, they are named or the library's, and change colours.
    has_policy = name in _POLICIES and not isinstance(step.get('policies'), list | tuple)
    needs_three = name in _COLOURS or (name == 'RandomErasing' and scope == 'mmpretrain')
    if needs_three or has_policy or (name in _CANVASES and channels > 1):
        return f'takes images of 3 channels, {has}. Remove it.'
    if channels == 1 and name in _WITH_AXIS:
        return f'takes images with an axis of channels, {has}: grey images have none. Remove it.'
    if step.get('backend') == 'pillow' and channels != 1:
        return f"resizes by Pillow (backend='pillow'), {has}. Set backend='cv2'."
    if name == 'Pad' and channels > 4:
        return f'takes images of up to 4 channels, {has}. Let data_preprocessor pad instead.'
    option, value = _PIXELS.get(name, ('', None))
    value = step.get(option, value)
    value = value.get('img', 0) if isinstance(value, Mapping) else value
    # OpenCV fills in as many values as there are channels, NumPy one for all, too.
    counts = {channels} if name == 'Pad' else {1, channels}
    if 'pad_val' in (step.get('hparams') or {}):  # of the policies
        option, value, counts = 'hparams.pad_val', step['hparams']['pad_val'], {channels}
    if isinstance(value, list | tuple) and len(value) not in counts:
        return f'has {len(value)} values in {option}, {has}. Set as many.'
    return None


def _check_loading(where: str, pipeline: Sequence[Any], channels: int) -> None:
    remedy = "'grayscale'" if channels == 1 else "'unchanged', and imdecode_backend='tifffile' for TIFF files"
    for step in pipeline:
        colours = step.get('color_type', 'color')
        if type_name(step) != 'LoadImageFromFile' or step.get('imdecode_backend') == 'tifffile':
            continue
        loaded = _LOADED.get(str(colours).removesuffix('_ignore_orientation'), channels)
        if loaded != channels:
            raise UsageError(
                f'LoadImageFromFile in the pipeline of {where} gives images of {loaded} channels '
                f'(color_type={colours!r}), and the model has in_channels={channels}. Set color_type={remedy}.'
            )
