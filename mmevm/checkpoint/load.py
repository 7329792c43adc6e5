"""Loading weights: strict, checked before the model changes, and said aloud."""

import logging
import os
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from mmevm.checkpoint import formats
from mmevm.checkpoint.align import Alignment, align, find_backbone
from mmevm.checkpoint.names import below, plain, plain_entries, select
from mmevm.checkpoint.weights_only import CheckpointError, load_file, load_from_http

Source = str | os.PathLike | Mapping[str, Any]


@dataclass
class LoadReport:
    """What a checkpoint had for a model.

    Attributes:
        loaded (list[str]): Parameters and buffers that were taken from the checkpoint.
        fresh (list[str]): Output norms that keep their initialisation, because the checkpoint was made without them,
            and what is around the backbone, if the checkpoint has nothing of that.
        adapted (list[str]): Entries that were reshaped for the model, as a 1 x 1 kernel to a matrix, or the stem's
            kernel for another number of input channels.
        resampled (list[str]): Entries that were interpolated, as a position embedding for another image size.
        derived (list[str]): Buffers that the checkpoint lacks and that the model fills itself, as its own patch grid.
        notes (dict[str, str]): How adapted and interpolated entries were changed, where that is worth a word.
        dropped (list[str]): Entries of a classifier, of a model of another task, of heads that the model was built
            without, of stages and output norms on which no returned map depends, or from beside the model.
        missing (list[str]): What the model has and the checkpoint lacks.
        unexpected (list[str]): What the checkpoint has and the model lacks.
        mismatched (list[str]): Entries of another shape, with both shapes.
    """

    loaded: list[str] = field(default_factory=list)
    fresh: list[str] = field(default_factory=list)
    adapted: list[str] = field(default_factory=list)
    resampled: list[str] = field(default_factory=list)
    derived: list[str] = field(default_factory=list)
    notes: dict[str, str] = field(default_factory=dict)
    dropped: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    mismatched: list[str] = field(default_factory=list)

    @property
    def problems(self) -> list[str]:
        """One line for each kind of difference that a strict load refuses, with the first names of it."""
        kinds = {'missing': self.missing, 'unexpected': self.unexpected, 'of another shape': self.mismatched}
        return [f'{len(names)} {kind}: {_some(names)}' for kind, names in kinds.items() if names]

    def require_whole(self, where: str) -> None:
        """Refuses what would leave a part of the model as it was initialised.

        Args:
            where (str): What to call the checkpoint.

        Raises:
            CheckpointError: If anything is fresh.
        """
        if self.fresh:
            parts = ', '.join(dict.fromkeys(plain(name).partition('.')[0] for name in self.fresh))
            raise CheckpointError(f'{where} lacks {len(self.fresh)} tensors of {parts}, which would stay random')

    def log(self, where: str) -> None:
        """Says in one line what was loaded, and in one more for each kind of difference.

        Args:
            where (str): What to call the checkpoint.
        """
        notes = {
            'adapted': ', '.join(self._noted(self.adapted)),
            'interpolated': ', '.join(self._noted(self.resampled)),
            'dropped': _groups(self.dropped),
            'left fresh': _groups(self.fresh),
        }
        said = [f'{verb} {names}' for verb, names in notes.items() if names]
        print_log('; '.join([f'loaded {len(self.loaded)} tensors from {where}', *said]), logger='current')
        for problem in self.problems:
            print_log(f'{where}: {problem}', logger='current', level=logging.WARNING)

    def _noted(self, names: list[str]) -> list[str]:
        return [f'{name} ({self.notes[name]})' if name in self.notes else name for name in names]


def load_checkpoint(model: nn.Module, source: Source, strict: bool = True, *, prefix: str | None = None) -> LoadReport:
    """Loads upstream's or mmevm's weights into a backbone, or into a model around one.

    Files are opened weights-only. Wrappers (``state_dict``, ``model``, moving averages), old spellings and what
    compilers, parallel wrappers and training frameworks put into names (``_orig_mod.``, ``module.``, ``model.``) are
    understood. A bare backbone takes the classifier's norm as its last output norm where the file has no output norms,
    and leaves the classifier out; an mmpretrain classifier takes both. Output norms that the file was made without stay
    as initialised; heads that the model was built without are left out. Everything is compared before the first weight
    is written: after an error the model is as it was.

    Args:
        model (nn.Module): A backbone of mmevm, or a detector, segmentor or classifier around one, compiled or not.
        source (path, address or mapping): A checkpoint file, its http(s) address, ``mmevm://NAME`` of the zoo, or
            what is in one.
        strict (bool): Raises on any missing, unexpected or mis-shaped entry; otherwise such entries are logged and
            the rest is loaded.
        prefix (str, optional): Takes only the entries below this name, as MMEngine's ``PretrainedInit`` does.

    Returns:
        LoadReport: What was loaded and what was not.

    Raises:
        TypeError: If the model has no backbone of mmevm.
        CheckpointError: If the file cannot be opened as plain data, or does not fit the model.
    """
    weights, report = fit_checkpoint(model, source, strict, prefix=prefix)
    _write(model.state_dict(), weights)
    report.log(_called(source))
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
    """Compares as :func:`load_checkpoint` does, and loads nothing: the model may be on the meta device, or sharded.

    Args:
        model (nn.Module): As for :func:`load_checkpoint`.
        source (path, address or mapping): As for :func:`load_checkpoint`.
        strict (bool): As for :func:`load_checkpoint`.
        prefix (str, optional): As for :func:`load_checkpoint`.
        free_heads (bool): Refuses no differences in heads, which other classes or another recipe change.
        class_sized (Callable): Gives, for entries of the model, the dimensions that depend on the number of classes, in
            which they may differ outside of the backbone. It is called only if anything there differs but heads.

    Returns:
        dict[str, Tensor]: What a load would write, by the model's names.
        LoadReport: What a load would take and what not.

    Raises:
        TypeError: If the model has no backbone of mmevm.
        CheckpointError: If the file cannot be opened as plain data, or does not fit the model.
    """
    backbone, place = find_backbone(model)
    entries = plain_entries(formats.unwrap(_open(source)))
    if prefix:
        entries = select(entries, prefix)
    target = model.state_dict()
    names = {plain(name): name for name in target}
    own = {name: target[names[name]] for name in names}
    found = align(own, backbone, place, entries)
    report = LoadReport(dropped=found.dropped)
    _adapt(backbone, found.weights, place, report)
    _compare(own, found.weights, place, report)
    if strict and not _acceptable(own, place, found, report, free_heads, class_sized):
        what = f'{_called(source)} does not fit the model{_difference(backbone, found.backbone)}'
        raise CheckpointError('\n  '.join([what, *report.problems]))
    weights = {names[name]: found.weights[name] for name in (*report.loaded, *report.derived)}
    for entries_of_model in (
        report.loaded,
        report.fresh,
        report.adapted,
        report.resampled,
        report.derived,
        report.missing,
    ):
        entries_of_model[:] = [names[name] for name in entries_of_model]
    report.notes = {names[name]: note for name, note in report.notes.items()}
    return weights, report


def _called(source: Source) -> str:
    return f'checkpoint {source}' if isinstance(source, str | os.PathLike) else 'the given state dict'


def _open(source: Source) -> Mapping[str, Any]:
    if isinstance(source, Mapping):
        checkpoint = source
    elif str(source).startswith('mmevm://'):
        from mmevm.zoo.fetching import fetch  # builds on this module

        checkpoint = load_file(fetch(str(source)))
    elif str(source).startswith(('http://', 'https://')):
        checkpoint = load_from_http(str(source), 'cpu')
    else:
        checkpoint = load_file(source)
    if not isinstance(checkpoint, Mapping):
        raise CheckpointError(f'a checkpoint must be a mapping of names to tensors, got {type(checkpoint).__name__}')
    return checkpoint


def _adapt(backbone: nn.Module, weights: dict[str, Any], place: str, report: LoadReport) -> None:
    """Fits the entries of a backbone to the model's images, in place, and leaves out what it was built without."""
    kinds = {'adapted': report.adapted, 'interpolated': report.resampled}
    inner = {name: value for name, value in below(weights, place).items() if isinstance(value, Tensor)}
    given = set(inner)
    for name, how in backbone.adapt(inner).items():
        weights[place + name] = inner[name]
        kind, _, note = how.partition(' ')
        if name not in given:
            report.derived.append(place + name)
        if kind in kinds:
            kinds[kind].append(place + name)
        if note:
            report.notes[place + name] = note
    unneeded = [place + name for name in backbone.not_built(below(weights, place))]
    report.dropped += unneeded
    for name in unneeded:
        del weights[name]


def _compare(own: Mapping[str, Tensor], weights: Mapping[str, Any], place: str, report: LoadReport) -> None:
    for name, value in weights.items():
        if name not in own:
            (report.dropped if _is_spare(name, own, place) else report.unexpected).append(name)
        elif isinstance(value, CheckpointError):
            report.mismatched.append(f'{place}{value}')
        elif not isinstance(value, Tensor):
            report.mismatched.append(f'{name} (expected a tensor, got {type(value).__name__})')
        elif value.shape != own[name].shape:
            report.mismatched.append(f'{name} (expected {list(own[name].shape)}, got {list(value.shape)})')
        elif name not in report.derived:
            report.loaded.append(name)
    # A classification backbone leaves necks and heads to be trained.
    alone = not any(name in weights for name in own if not name.startswith(place))
    for name in own:
        if name not in weights:
            norm = _output_norm(name, place)
            whole_norm_absent = norm is not None and not any(_output_norm(other, place) == norm for other in weights)
            outside = alone and not name.startswith(place)
            (report.fresh if whole_norm_absent or outside else report.missing).append(name)


def _output_norm(name: str, place: str) -> str | None:
    """The norm to which an entry belongs that a backbone has only if it returns the map of that stage."""
    match = re.fullmatch(rf'({re.escape(place)}outnorm\d+)\.(?:weight|bias)', name)
    return match and match[1]


# Heads, of which the other parts need none, and what training alone needs.
_SPARE_PART = re.compile(r'(?:.*\.)?(?:\w*head|auxiliary_head\.\d+|\w*heads\.[a-zA-Z_]\w*|loss\w*|data_preprocessor)')


def _is_spare(name: str, own: Mapping[str, Tensor], place: str) -> bool:
    """Whether the checkpoint may have an entry that the model has not: of a whole part that it was built without."""
    if name.startswith(place):
        return False
    modules = name.split('.')[:-1]
    prefixes = ('.'.join(modules[: i + 1]) for i in range(len(modules)))
    absent = next((part for part in prefixes if not any(other.startswith(f'{part}.') for other in own)), None)
    return absent is not None and _SPARE_PART.fullmatch(absent) is not None


def _acceptable(
    own: Mapping[str, Tensor],
    place: str,
    found: Alignment,
    report: LoadReport,
    free_heads: bool,
    class_sized: Callable[[], Mapping[str, Collection[int]]],
) -> bool:
    """Whether every difference is in a head that may differ, or in a dimension that the number of classes decides."""
    mismatched = {problem.partition(' ')[0] for problem in report.mismatched}
    differing = {*report.missing, *report.unexpected, *mismatched}
    if free_heads:
        heads = {name for name in differing if name.removeprefix(found.root).partition('.')[0].endswith('head')}
        differing -= heads
    if not differing <= mismatched or any(name.startswith(place) for name in differing):
        return False
    dimensions = class_sized() if differing else {}
    return all(_differs_only_in(dimensions.get(name, ()), own[name], found.weights[name]) for name in differing)


def _differs_only_in(dimensions: Collection[int], expected: Tensor, got: Any) -> bool:
    if not isinstance(got, Tensor) or got.dim() != expected.dim():
        return False
    return all(a == b or i in dimensions for i, (a, b) in enumerate(zip(expected.shape, got.shape, strict=True)))


def _difference(backbone: nn.Module, state_dict: Mapping[str, Any]) -> str:
    """Which network or variant the checkpoint's backbone is of, when it is another one."""
    from mmevm.checkpoint.identify import identify, is_part, signature  # builds on this module

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


_SHOWN = 8


def _some(names: list[str]) -> str:
    return ', '.join(names[:_SHOWN]) + (f' and {len(names) - _SHOWN} more' if len(names) > _SHOWN else '')


# A stage of a backbone, or a block of Vim: what is inside of it is not worth naming.
_STAGE = re.compile(r'(?:.*\.)?layers\.\d+')
_IN_STAGE = re.compile(rf'({_STAGE.pattern})\.(?:blocks|mixer|norm)\..*')


def _groups(names: list[str]) -> str:
    """The modules of entries, each once; of many modules those that contain them."""
    groups = dict.fromkeys(_IN_STAGE.sub(r'\1.', name).rpartition('.')[0] or name for name in names)
    depth = max((group.count('.') for group in groups), default=0)
    while len(groups) > _SHOWN and depth:
        groups = dict.fromkeys(
            group if _STAGE.fullmatch(group) else '.'.join(group.split('.')[:depth]) for group in groups
        )
        depth -= 1
    return _some(list(groups))
