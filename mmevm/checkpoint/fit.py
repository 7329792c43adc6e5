"""Comparison of a checkpoint with a model, entry by entry; nothing is loaded."""

import re
from collections.abc import Collection, Mapping
from math import isfinite
from typing import Any

import torch
from torch import Tensor, nn

from mmevm.checkpoint import formats
from mmevm.checkpoint.align import Alignment, align
from mmevm.checkpoint.names import below, plain_entries, select
from mmevm.checkpoint.report import LoadReport
from mmevm.checkpoint.weights_only import CheckpointError


def compare(
    own: Mapping[str, Tensor],
    backbone: nn.Module,
    start: str,
    checkpoint: Mapping[str, Any],
    prefix: str | None = None,
) -> tuple[Alignment, LoadReport]:
    """Compare a checkpoint with a model around a backbone of mmevm.

    Args:
        own (Mapping[str, Tensor]): The model's entries by plain names; they may be on the meta device.
        backbone (nn.Module): The backbone in the model.
        start (str): Its prefix there.
        checkpoint (Mapping): The content of a file, in any format that mmevm reads.
        prefix (str, optional): Use only the entries below this prefix.

    Returns:
        Alignment: The checkpoint's entries by the model's plain names, fitted to the model.
        LoadReport: What fits and what does not, by the same names.

    Raises:
        CheckpointError: If the checkpoint has no weights by name, or several backbones that fit equally well.
    """
    entries = plain_entries(formats.unwrap(checkpoint))
    if prefix:
        entries = select(entries, prefix)
    found = align(own, backbone, start, entries)
    report = LoadReport(dropped=found.dropped)
    _adapt(backbone, found.weights, start, report)
    _compare(own, found.weights, start, report)
    return found, report


def _adapt(backbone: nn.Module, weights: dict[str, Any], start: str, report: LoadReport) -> None:
    """Adapt the entries of a backbone to the model's input, in place, and drop those it was built without."""
    kinds = {'adapted': report.adapted, 'interpolated': report.resampled}
    inner = {name: value for name, value in below(weights, start).items() if isinstance(value, Tensor)}
    given = set(inner)
    for name, how in backbone.adapt(inner).items():
        weights[start + name] = inner[name]
        kind, _, note = how.partition(' ')
        if name not in given:
            report.derived.append(start + name)
        if kind in kinds:
            kinds[kind].append(start + name)
        if note:
            report.notes[start + name] = note
    unneeded = [start + name for name in backbone.not_built(below(weights, start))]
    report.dropped += unneeded
    for name in unneeded:
        del weights[name]


def _compare(own: Mapping[str, Tensor], weights: Mapping[str, Any], start: str, report: LoadReport) -> None:
    for name, value in weights.items():
        if name not in own:
            (report.dropped if _is_spare(name, own, start) else report.unexpected).append(name)
        elif isinstance(value, CheckpointError):
            report.mismatched.append(f'{start}{value}')
        elif not isinstance(value, Tensor):
            report.mismatched.append(f'{name} (expected a tensor, got {type(value).__name__})')
        elif value.shape != own[name].shape:
            report.mismatched.append(f'{name} (expected {list(own[name].shape)}, got {list(value.shape)})')
        elif name not in report.derived:
            report.loaded.append(name)
    # A classification backbone is enough to start a detector from: its neck and head are trained.
    alone = not any(name in weights for name in own if not name.startswith(start))
    for name in own:
        if name not in weights:
            norm = _output_norm(name, start)
            norm_absent = norm is not None and not any(_output_norm(other, start) == norm for other in weights)
            outside = alone and not name.startswith(start)
            (report.fresh if norm_absent or outside else report.missing).append(name)


def refuse_values(
    own: Mapping[str, Tensor], buffers: Collection[str], weights: Mapping[str, Any], start: str, report: LoadReport
) -> None:
    """Move the entries whose values cannot be the model's from ``report.loaded`` to ``report.unusable``.

    Args:
        own (Mapping[str, Tensor]): The model's entries by plain names; they may be on the meta device.
        buffers (Collection[str]): Those that are no parameters.
        weights (Mapping[str, Any]): The checkpoint's entries by the same names.
        start (str): Start of the backbone's names. What other parts hold need not be finite: some have parameters that
            nothing initialises or uses.
        report (LoadReport): What fits by name and shape.
    """
    reasons = {}
    for name in report.loaded:
        leaf = name.rpartition('.')[2]
        # Masks and limits are infinite on purpose; averages of a batch norm are not.
        is_mask = name in buffers and not leaf.startswith('running_')
        may_be_infinite = is_mask or not name.startswith(start)
        # Files that were cast to half precision as a whole count batches in it.
        if not (leaf == 'num_batches_tracked' and weights[name].is_floating_point()):
            reasons[name] = _misfit(weights[name], own[name].dtype, may_be_infinite)
    report.unusable += [f'{name} ({reason})' for name, reason in reasons.items() if reason]
    report.loaded[:] = [name for name in report.loaded if not reasons.get(name)]


def _kind(dtype: torch.dtype) -> str:
    if dtype.is_floating_point:
        return 'floating-point numbers'
    return 'complex numbers' if dtype.is_complex else 'booleans' if dtype == torch.bool else 'integers'


def _misfit(value: Tensor, dtype: torch.dtype, may_be_infinite: bool) -> str | None:
    """Return why values cannot be cast to a dtype of the model, if they cannot."""
    if _kind(value.dtype) != _kind(dtype) or value.layout != torch.strided or value.is_quantized:
        layout = '' if value.layout == torch.strided else f'{value.layout} '
        return f'expected dense {_kind(dtype)}, got {layout}{value.dtype}'
    # Shards and fake tensors cannot be looked at here.
    if not dtype.is_floating_point or may_be_infinite or value.is_meta or type(value) not in (Tensor, nn.Parameter):
        return None
    if value.detach().to(dtype).isfinite().all():
        return None
    largest = value.detach().double().abs().max().item()
    if isfinite(largest):
        return f'expected numbers in the range of {dtype}, got up to {largest:.3g}'
    return 'expected finite numbers, got NaN or infinite ones'


def _output_norm(name: str, start: str) -> str | None:
    """Return the output norm that an entry belongs to; a backbone has one for each map that it returns."""
    match = re.fullmatch(rf'({re.escape(start)}outnorm\d+)\.(?:weight|bias)', name)
    return match and match[1]


# Heads, on which no other part depends, and what only training needs.
_SPARE_PART = re.compile(r'(?:.*\.)?(?:\w*head|auxiliary_head\.\d+|\w*heads\.[a-zA-Z_]\w*|loss\w*|data_preprocessor)')


def _is_spare(name: str, own: Mapping[str, Tensor], start: str) -> bool:
    """Return whether an entry belongs to a spare part that the model was built without."""
    if name.startswith(start):
        return False
    modules = name.split('.')[:-1]
    prefixes = ('.'.join(modules[: i + 1]) for i in range(len(modules)))
    absent = next((part for part in prefixes if not any(other.startswith(f'{part}.') for other in own)), None)
    return absent is not None and _SPARE_PART.fullmatch(absent) is not None
