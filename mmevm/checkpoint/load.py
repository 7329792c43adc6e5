"""Loading weights: strict, checked before the model changes, and said aloud."""

import logging
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from mmevm.checkpoint import formats
from mmevm.checkpoint.weights_only import CheckpointError, load_file, load_from_http

_IN_STAGE = re.compile(r'(?<![^.])(layers\.\d+\.)(?:blocks|mixer|norm)\..*')

Source = str | os.PathLike | Mapping[str, Any]


@dataclass
class LoadReport:
    """What a checkpoint had for a model.

    Attributes:
        loaded (list[str]): Parameters and buffers that were taken from the checkpoint.
        fresh (list[str]): Output norms that keep their initialisation, because classification files have none.
        adapted (list[str]): Entries that were reshaped for the model, as a 1 x 1 kernel to a matrix, or the stem's
            kernel for another number of input channels.
        resampled (list[str]): Entries that were interpolated, as a position embedding for another image size.
        derived (list[str]): Buffers that the checkpoint lacks and that the model fills itself, as its own patch grid.
        notes (dict[str, str]): How adapted and interpolated entries were changed, where that is worth a word.
        dropped (list[str]): Entries of a classifier, of other parts of a detector, or of stages and output norms that
            the model lacks because it returns no map that depends on them.
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

    def only_in_heads(self) -> bool:
        """Whether everything that differs belongs to modules of the model that are called a head."""
        return all(
            name.partition('.')[0].endswith('head') for name in (*self.missing, *self.unexpected, *self.mismatched)
        )

    def require_whole(self, where: str) -> None:
        """Refuses what would leave a part of the model as it was initialised.

        Args:
            where (str): What to call the checkpoint.

        Raises:
            CheckpointError: If anything is fresh.
        """
        if self.fresh:
            parts = ', '.join(dict.fromkeys(name.partition('.')[0] for name in self.fresh))
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


def load_checkpoint(
    model: nn.Module, source: Source, strict: bool = True, *, prefix: str | None = None
) -> LoadReport:
    """Loads upstream's or mmevm's weights into a backbone, or into a model with a ``backbone``.

    Files are opened weights-only. Wrappers (``state_dict``, ``model``, moving averages, ``module.``, ``backbone.``) and
    old spellings are understood. A bare backbone takes the classifier's norm as its last output norm where the file has
    no output norms, and leaves the classifier out; an mmpretrain classifier takes both. Everything is compared before
    the first weight is written: after an error the model is as it was.

    Args:
        model (nn.Module): A backbone of mmevm, or a detector, segmentor or classifier around one.
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
    model: nn.Module, source: Source, strict: bool = True, *, prefix: str | None = None, free_heads: bool = False
) -> tuple[dict[str, Tensor], LoadReport]:
    """Compares as :func:`load_checkpoint` does, and loads nothing: the model may be on the meta device, or sharded.

    Args:
        model (nn.Module): As for :func:`load_checkpoint`.
        source (path, address or mapping): As for :func:`load_checkpoint`.
        strict (bool): As for :func:`load_checkpoint`.
        prefix (str, optional): As for :func:`load_checkpoint`.
        free_heads (bool): Refuses no differences in heads, which other classes or another recipe change.

    Returns:
        dict[str, Tensor]: What a load would write, by the model's names.
        LoadReport: What a load would take and what not.

    Raises:
        TypeError: If the model has no backbone of mmevm.
        CheckpointError: If the file cannot be opened as plain data, or does not fit the model.
    """
    backbone, place = find_backbone(model)
    state_dict = formats.strip_prefix(formats.unwrap(_open(source)))
    if prefix:
        state_dict = _below(state_dict, prefix)
    report, target = LoadReport(), model.state_dict()
    weights = _arrange(target, backbone, place, state_dict, report)
    _compare(target, weights, place, report)
    if report.problems and strict and not (free_heads and report.only_in_heads()):
        what = f'{_called(source)} does not fit the model{_difference(backbone, state_dict)}'
        raise CheckpointError('\n  '.join([what, *report.problems]))
    return {name: weights[name] for name in (*report.loaded, *report.derived)}, report


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


def find_backbone(model: nn.Module) -> tuple[nn.Module, str]:
    """The backbone of mmevm in a model and the prefix of its parameters.

    Raises:
        TypeError: If there is none.
    """
    for module, place in ((model, ''), (getattr(model, 'backbone', None), 'backbone.')):
        if hasattr(module, 'arch_zoo'):
            return module, place
    raise TypeError(f'expected a backbone of mmevm or a model with one as `backbone`, got {type(model).__name__}')


def _below(state_dict: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    prefix = prefix.rstrip('.') + '.'
    below = {name[len(prefix) :]: value for name, value in state_dict.items() if name.startswith(prefix)}
    if not below:
        raise CheckpointError(f'no entry of the checkpoint starts with {prefix!r}; it has {sorted(state_dict)[:5]} …')
    return below


def _arrange(
    own: Mapping[str, Tensor], backbone: nn.Module, place: str, state_dict: Mapping[str, Any], report: LoadReport
) -> dict[str, Any]:
    """Brings the checkpoint's names to the model's, and sets aside what the model has no place for."""
    whole = any(name.startswith('backbone.') for name in state_dict)
    inner = _below(state_dict, 'backbone') if whole else dict(state_dict)
    rest = {name: value for name, value in state_dict.items() if whole and not name.startswith('backbone.')}
    weights = formats.convert(inner)
    formats.promote_classifier_norm(weights, f'outnorm{len(backbone.dims) - 1}')
    classifier = {name: weights.pop(name) for name in list(weights) if name.startswith('classifier.')}
    _adapt(backbone, weights, place, report)
    weights = {place + name: value for name, value in weights.items()}
    if place and _parts(own) & _parts(rest):
        return weights | rest
    if place and 'head.fc.weight' in own and 'classifier.head.weight' in classifier:
        for leaf in ('weight', 'bias'):
            weights[f'head.fc.{leaf}'] = classifier.pop(f'classifier.head.{leaf}')
    # A model of another task, such as the classifier that a detector starts from, shares the backbone alone.
    report.dropped += [*classifier, *rest]
    return weights


def _adapt(backbone: nn.Module, weights: dict[str, Any], place: str, report: LoadReport) -> None:
    """Fits the entries of a backbone to the model's images, and leaves out those of stages that it does not need."""
    kinds = {'adapted': report.adapted, 'interpolated': report.resampled}
    given = set(weights)
    for name, how in backbone.adapt(weights).items():
        kind, _, note = how.partition(' ')
        if name not in given:
            report.derived.append(place + name)
        if kind in kinds:
            kinds[kind].append(place + name)
        if note:
            report.notes[place + name] = note
    unneeded = backbone.not_built(weights)
    report.dropped += [place + name for name in unneeded]
    for name in unneeded:
        del weights[name]


def _parts(names: Iterable[str]) -> set[str]:
    """The modules of a model, apart from its backbone, that have weights."""
    return {name.partition('.')[0] for name in names} - {'backbone'}


def _compare(target: Mapping[str, Tensor], weights: Mapping[str, Any], place: str, report: LoadReport) -> None:
    for name, value in weights.items():
        if name not in target:
            report.unexpected.append(name)
        elif isinstance(value, CheckpointError):
            report.mismatched.append(f'{place}{value}')
        elif not isinstance(value, Tensor):
            report.mismatched.append(f'{name} (expected a tensor, got {type(value).__name__})')
        elif value.shape != target[name].shape:
            report.mismatched.append(f'{name} (expected {list(target[name].shape)}, got {list(value.shape)})')
        elif name not in report.derived:
            report.loaded.append(name)
    absent = [name for name in target if name not in weights]
    norms = [name for name in absent if name.startswith(f'{place}outnorm')]
    # Classification files have no output norms, so a fresh set is expected; half a set is not.
    if not any(name.startswith(f'{place}outnorm') and not _is_last(name, target) for name in weights):
        report.fresh = norms
    # A classification backbone leaves necks and heads to be trained.
    if not any(name in weights for name in target if not name.startswith(place)):
        report.fresh += [name for name in absent if not name.startswith(place)]
    report.missing = [name for name in absent if name not in report.fresh]


def _is_last(name: str, target: Mapping[str, Tensor]) -> bool:
    norms = sorted({n.rsplit('.', 1)[0] for n in target if 'outnorm' in n})
    return bool(norms) and name.rsplit('.', 1)[0] == norms[-1]


def _difference(backbone: nn.Module, state_dict: Mapping[str, Any]) -> str:
    """Which network or variant the checkpoint is of, when it is another one."""
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
        f': it is {named} (dims {dims}, depths {depths}), '
        f'the model has dims {backbone.dims}, depths {backbone.depths}'
    )


@torch.no_grad()
def _write(target: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> None:
    # state_dict() gives views of the parameters, so that copying into them keeps dtype, device and sharing.
    for name, value in weights.items():
        target[name].copy_(value)


def _some(names: list[str], shown: int = 8) -> str:
    return ', '.join(names[:shown]) + (f' and {len(names) - shown} more' if len(names) > shown else '')


def _groups(names: list[str]) -> str:
    """Names without their last part, or those of whole blocks and stages, each once."""
    return ', '.join(dict.fromkeys(_IN_STAGE.sub(r'\1', name).rsplit('.', 1)[0] for name in names))
