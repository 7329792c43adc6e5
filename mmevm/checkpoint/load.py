"""Loading weights: strict, reported, and compared in full before the model changes."""

import os
from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from mmevm.checkpoint.align import Alignment, find_backbone
from mmevm.checkpoint.fit import compare, refuse_values
from mmevm.checkpoint.identify import identify, is_part, signature
from mmevm.checkpoint.names import plain
from mmevm.checkpoint.report import LoadReport
from mmevm.checkpoint.weights_only import CheckpointError, load_file, load_from_http

Source = str | os.PathLike | Mapping[str, Any]

OPENERS: dict[str, Callable[[str], Mapping[str, Any]]] = dict.fromkeys(
    ('http', 'https'), partial(load_from_http, map_location='cpu')
)
"""Openers of addresses by scheme; the zoo registers ``mmevm``. Everything else is a file."""


def load_checkpoint(model: nn.Module, source: Source, strict: bool = True, *, prefix: str | None = None) -> LoadReport:
    """Load upstream's or mmevm's weights into a backbone, or into a model around one.

    Files are opened weights-only. Wrappers (``state_dict``, ``model``, moving averages), upstream's names and the
    prefixes of compilers, parallel wrappers and training frameworks (``_orig_mod.``, ``module.``, ``model.``) are
    understood. A bare backbone uses the classifier's norm as its last output norm if the file has no output norms, and
    drops the classifier; an mmpretrain classifier uses both. Output norms that the file was made without stay as
    initialised; heads that the model was built without are dropped. Everything is compared before the first weight is
    written: after an error the model is unchanged.

    Args:
        model (nn.Module): A backbone of mmevm, or a detector, segmentor or classifier around one, compiled or not.
        source (path, address or mapping): A checkpoint file, its http(s) address, ``mmevm://NAME`` of the zoo, or
            the content of a file.
        strict (bool): Raise on any missing, unexpected or mis-shaped entry, and on values that cannot be weights, as
            NaN; otherwise log such entries and load the others.
        prefix (str, optional): Use only the entries below this prefix, as MMEngine's ``PretrainedInit`` does.

    Returns:
        LoadReport: What was loaded and what was not.

    Raises:
        TypeError: If the model has no backbone of mmevm, or ``source`` is nothing of the above.
        ValueError: If the model is on the meta device, which keeps no values, and the weights are not.
        CheckpointError: If the file cannot be opened as plain data, or does not fit the model.
    """
    weights, report = fit_checkpoint(model, source, strict, prefix=prefix)
    target = model.state_dict()
    on_meta = [name for name in weights if target[name].is_meta]
    if on_meta and not any(value.is_meta for value in weights.values()):
        raise ValueError(
            f'expected a model with values, got {len(on_meta)} tensors on the meta device, such as {on_meta[0]}: build '
            "it on a device, or call model.to_empty(device='cpu') before"
        )
    _write(target, weights)
    report.log(_describe(source))
    return report


def fit_checkpoint(
    model: nn.Module,
    source: Source,
    strict: bool = True,
    *,
    prefix: str | None = None,
    free_heads: bool = False,
    class_sized: Callable[[], Mapping[str, Collection[int]]] = dict,
) -> tuple[dict[str, Tensor], LoadReport]:
    """Compare as :func:`load_checkpoint` does, but load nothing: the model may be on the meta device, or sharded.

    Args:
        model (nn.Module): As for :func:`load_checkpoint`.
        source (path, address or mapping): As for :func:`load_checkpoint`.
        strict (bool): As for :func:`load_checkpoint`.
        prefix (str, optional): As for :func:`load_checkpoint`.
        free_heads (bool): Accept any difference in heads, as other classes or another recipe bring.
        class_sized (Callable): Return, by entry of the model, the dimensions that depend on the number of classes and
            may differ outside the backbone. It is called only if something other than heads differs there.

    Returns:
        dict[str, Tensor]: What a load would write, by the model's names.
        LoadReport: What a load would use and what not.

    Raises:
        TypeError: If the model has no backbone of mmevm, or ``source`` is nothing of the above.
        CheckpointError: If the file cannot be opened as plain data, or does not fit the model.
    """
    backbone, start = find_backbone(model)  # before a file is opened or downloaded
    checkpoint = open_checkpoint(source)
    target = model.state_dict()
    names = {plain(name): name for name in target}
    own = {name: target[names[name]] for name in names}
    found, report = compare(own, backbone, start, checkpoint, prefix)
    buffers = {plain(name) for name, _ in model.named_buffers(remove_duplicate=False)}
    refuse_values(own, buffers, found.weights, start, report)
    if strict and not _acceptable(own, found, report, free_heads, class_sized):
        what = f'{_describe(source)} does not fit the model{_difference(backbone, found.backbone)}'
        raise CheckpointError('\n  '.join([what, *report.problems]))
    weights = {names[name]: found.weights[name] for name in (*report.loaded, *report.derived)}
    report.rename(names)
    return weights, report


def _describe(source: Source) -> str:
    return f'checkpoint {source}' if isinstance(source, str | os.PathLike) else 'the given state dict'


def open_checkpoint(source: Source) -> Mapping[str, Any]:
    """Return the content of a checkpoint, as data only; for what ``source`` may be see :func:`load_checkpoint`.

    Raises:
        TypeError: If it is no path, address or mapping.
        CheckpointError: If it cannot be opened as plain data, or is not a mapping.
    """
    if isinstance(source, Mapping):
        checkpoint = source
    elif not isinstance(source, str | os.PathLike):
        remedy = 'give its state_dict()' if isinstance(source, nn.Module) else 'save it to a file, and give the path'
        raise TypeError(
            'expected the path or address of a checkpoint, mmevm://NAME, or a mapping of names to tensors, got '
            f'{type(source).__name__}; {remedy}'
        )
    else:
        scheme, separator, _ = str(source).partition('://')
        opener = OPENERS.get(scheme) if separator else None
        checkpoint = opener(str(source)) if opener else load_file(source)
    if not isinstance(checkpoint, Mapping):
        raise CheckpointError(f'a checkpoint must be a mapping of names to tensors, got {type(checkpoint).__name__}')
    return checkpoint


def _acceptable(
    own: Mapping[str, Tensor],
    found: Alignment,
    report: LoadReport,
    free_heads: bool,
    class_sized: Callable[[], Mapping[str, Collection[int]]],
) -> bool:
    """Return whether every difference is in a head that may differ, or in a dimension that depends on the classes."""
    if report.unusable:
        return False
    mismatched = {problem.partition(' ')[0] for problem in report.mismatched}
    differing = {*report.missing, *report.unexpected, *mismatched}
    if free_heads:
        heads = {name for name in differing if name.removeprefix(found.root).partition('.')[0].endswith('head')}
        differing -= heads
    if not differing <= mismatched or any(name.startswith(found.prefix) for name in differing):
        return False
    dimensions = class_sized() if differing else {}
    return all(_differs_only_in(dimensions.get(name, ()), own[name], found.weights[name]) for name in differing)


def _differs_only_in(dimensions: Collection[int], expected: Tensor, got: Any) -> bool:
    if not isinstance(got, Tensor) or got.dim() != expected.dim():
        return False
    return all(a == b or i in dimensions for i, (a, b) in enumerate(zip(expected.shape, got.shape, strict=True)))


def _difference(backbone: Any, state_dict: Mapping[str, Any]) -> str:
    """Return which network or variant the checkpoint's backbone is, if it is another one than the model's."""
    own, found = type(backbone).__name__, signature(state_dict)
    if found is None:
        return f': it holds no {own} backbone'
    dims, depths = found
    architecture, _, variant = (identify(state_dict) or '').partition(' ')
    if architecture not in ('', own):
        return f': it is {architecture} {variant!r}, the model is {own}'
    if found == (backbone.dims, backbone.depths):
        return ''
    if is_part(found, (backbone.dims, backbone.depths)):
        given, what = (len(dims), 'stages') if len(backbone.dims) > 1 else (depths[0], 'blocks')
        needed = len(backbone.layers)
        return f': it has the first {given} {what} alone, the model needs {needed}' if given < needed else ''
    named = f"the variant '{variant}'" if variant else 'no known variant'
    return (
        f': it is {named} (dims {dims}, depths {depths}), the model has dims {backbone.dims}, depths {backbone.depths}'
    )


@torch.no_grad()
def _write(target: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> None:
    # state_dict() gives views of the parameters, so that copying into them keeps dtype, device and sharing.
    for name, value in weights.items():
        target[name].copy_(value)
