"""A test pipeline as the steps that a predictor takes."""

from collections.abc import Mapping, Sequence
from typing import Any

from mmevm.errors import UsageError
from mmevm.registry import type_name

_KEPT = {
    'FilterAnnotations',
    'GenerateEdge',
    'LoadAnnotations',
    'LoadDepthAnnotation',
    'LoadEmptyAnnotations',
    'LoadOneDLAnnotations',
    'LoadPanopticAnnotations',
    'LoadProposals',
    'LoadTrackAnnotations',
    'PackDetInputs',
    'PackInputs',
    'PackMultiTaskInputs',
    'PackSegInputs',
}
"""Steps that leave an image as it is."""

_OPTIONS = {
    'LoadImageFromFile': {
        'to_float32',
        'color_type',
        'imdecode_backend',
        'file_client_args',
        'backend_args',
        'ignore_empty',
    },
    'Resize': {'scale', 'scale_factor', 'keep_ratio', 'clip_object_border', 'backend', 'interpolation'},
    'ResizeEdge': {'scale', 'edge', 'backend', 'interpolation'},
    'CenterCrop': {'crop_size', 'auto_pad', 'pad_cfg', 'clip_object_border'},
    'Pad': {'size', 'size_divisor', 'pad_to_square', 'pad_val', 'padding_mode'},
}
"""Options of the steps that a predictor knows."""


def read_steps(pipeline: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the resizing, cropping and padding of a test pipeline.

    'factor' is across and down. 'pad' is the least height and width (None: those of a square), which are then rounded
    up to multiples of 'divisor'.

    Raises:
        UsageError: A predictor would not do what a step does.
    """
    steps = []
    for step in pipeline:
        kind = type_name(step)
        if kind in _KEPT or step.get('prob') == 0:
            continue
        if kind not in _OPTIONS:
            raise UsageError(
                f'The test pipeline has the step {kind}, which exported models do not have; supported are '
                f'{", ".join(_OPTIONS)}, and what leaves images as they are. Remove it from the config, or normalise '
                'in the data_preprocessor.'
            )
        unknown = sorted(step.keys() - _OPTIONS[kind] - {'type', '_scope_'})
        _require(not unknown, step, f'the option {", ".join(unknown)}', ', '.join(sorted(_OPTIONS[kind])))
        if kind == 'LoadImageFromFile':
            _expect(step, 'color_type', 'color')
            _expect(step, 'imdecode_backend', 'cv2', 'pillow', 'turbojpeg', None)
        elif kind == 'CenterCrop':
            _expect(step, 'auto_pad', False)
            steps.append({'crop': _pair(step['crop_size'])[::-1]})  # the config has width and height
        elif kind == 'Pad':
            steps.append(_padding(step))
        else:
            steps.append(_resizing(kind, step))
    return steps


def _resizing(kind: str, step: Mapping[str, Any]) -> dict[str, Any]:
    antialias = step.get('backend') == 'pillow'
    if not antialias:
        _expect(step, 'backend', 'cv2', None)
        _expect(step, 'interpolation', 'bilinear')
    method = {'interpolation': step.get('interpolation', 'bilinear'), 'antialias': antialias}
    if kind == 'ResizeEdge':
        _expect(step, 'edge', 'short', 'long')
        return {'edge': step.get('edge', 'short'), 'size': step['scale'], **method}
    name = 'scale' if step.get('scale') else 'scale_factor'
    given = step.get(name)
    values = [] if given is None else _pair(given)
    positive = len(values) == 2 and all(isinstance(value, int | float) and value > 0 for value in values)
    _require(positive, step, f'{name}={given}', 'a scale or scale_factor of one or two positive numbers')
    key = 'scale' if name == 'scale' else 'factor'
    return {key: values, 'keep_ratio': bool(step.get('keep_ratio')), **method}


def _padding(step: Mapping[str, Any]) -> dict[str, Any]:
    _expect(step, 'padding_mode', 'constant')
    value = step.get('pad_val', 0)
    value = value.get('img', 0) if isinstance(value, Mapping) else value
    value = [value] * 3 if isinstance(value, int | float) else list(value)
    # The config has width and height.
    least = None if step.get('pad_to_square') else list(step.get('size') or (0, 0))[::-1]
    return {'pad': least, 'divisor': step.get('size_divisor') or 1, 'value': value}


def _pair(value: Any) -> list:
    return [value] * 2 if isinstance(value, int | float) else list(value)


def _expect(step: Mapping[str, Any], option: str, *values: Any) -> None:
    """Refuse an option that has none of the ``values``, of which the first is the default."""
    value = step.get(option, values[0])
    _require(value in values, step, f'{option}={value!r}', ' or '.join(repr(known) for known in values))


def _require(condition: bool, step: Mapping[str, Any], found: str, supported: str) -> None:
    if not condition:
        raise UsageError(
            f'The step {type_name(step)} of the test pipeline has {found}, which exported models do not have; '
            f'supported: {supported}. Change the config.'
        )
