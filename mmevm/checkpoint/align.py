"""Matching the names in a checkpoint to a model's: the backbone in each, and the parts around it."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from mmevm.checkpoint import formats
from mmevm.checkpoint.names import backbone_prefixes, below, plain, without_module
from mmevm.checkpoint.weights_only import CheckpointError

_AVERAGE = re.compile(r'(?:^|[._])(?:ema|averaged?)(?:$|[._])')


@dataclass
class Alignment:
    """A checkpoint by the plain names of a model.

    Attributes:
        weights (dict[str, Any]): Entries that the model has or should have.
        dropped (list[str]): Entries of a classifier, of another task's heads, or outside the model.
        backbone (dict[str, Any]): The entries of the backbone, by the checkpoint's names.
        prefix (str): Prefix of the backbone in the model.
        root (str): Prefix, in the model, of the detector, segmentor or classifier around the backbone.
    """

    weights: dict[str, Any]
    dropped: list[str]
    backbone: dict[str, Any]
    prefix: str
    root: str


def find_backbone(model: nn.Module) -> tuple[nn.Module, str]:
    """Return the backbone of mmevm in a model and the prefix of its parameters, without what compilers insert.

    Raises:
        TypeError: If there is none, or several of which none is the model itself or its ``backbone``.
    """
    found: dict[str, nn.Module] = {}
    for name, module in model.named_modules():
        prefix = plain(f'{name}.' if name else '')
        ours = hasattr(type(module), 'arch_zoo') and hasattr(type(module), 'adapt')  # mmpretrain's have the first alone
        if ours and not any(prefix.startswith(outer) for outer in found):
            found[prefix] = module
    prefix = next(iter(found)) if len(found) == 1 else 'backbone.'
    if prefix in found:
        return found[prefix], prefix
    several = f' with {len(found)} of them: {", ".join(found)}' if found else ''
    got = type(model).__name__ + several
    raise TypeError(f'expected a backbone of mmevm or a model with one as `backbone`, got {got}')


def has_backbone(model: nn.Module) -> bool:
    """Return whether :func:`find_backbone` finds a backbone of mmevm in a model."""
    try:
        find_backbone(model)
    except TypeError:
        return False
    return True


def align(own: Mapping[str, Tensor], backbone: Any, prefix: str, entries: Mapping[str, Any]) -> Alignment:
    """Rename the entries of a checkpoint to a model's names.

    Args:
        own (Mapping[str, Tensor]): The model's entries by plain names.
        backbone (nn.Module): The backbone in the model.
        prefix (str): Its prefix in the model.
        entries (Mapping[str, Any]): The checkpoint's entries by plain names.

    Returns:
        Alignment: Every entry is in ``weights`` or named in ``dropped``.

    Raises:
        CheckpointError: If several backbones in the checkpoint fit equally well.
    """
    start = find_start(own, prefix, entries)
    inner = below(entries, start)
    weights, classifier = split_backbone(inner, below(own, prefix), len(backbone.dims) - 1)
    weights = {prefix + name: value for name, value in weights.items()}
    root, around, outside = _split_around(own, prefix, entries, start)
    if _parts((name for name in own if not name.startswith(prefix)), root) & _parts(around, root):
        return Alignment(weights | around, [*classifier, *outside], inner, prefix, root)
    head = root + formats.MMPRETRAIN_HEAD
    if prefix and f'{head}weight' in own and f'{formats.CLASSIFIER_HEAD}weight' in classifier:
        for name in below(classifier, formats.CLASSIFIER_HEAD):
            weights[head + name] = classifier.pop(formats.CLASSIFIER_HEAD + name)
    # A model of another task, such as the classifier that a detector starts from, shares the backbone alone.
    return Alignment(weights, [*classifier, *around, *outside], inner, prefix, root)


def split_backbone(
    inner: Mapping[str, Any], own: Mapping[str, Any], last_stage: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Rename a backbone's entries to a module's names, and split off a classifier that the module does not have.

    Args:
        inner (Mapping[str, Any]): Entries of a backbone, by upstream's names or mmevm's.
        own (Mapping[str, Any]): The module's entries, whose names are kept.
        last_stage (int): Index of the module's last stage.

    Returns:
        dict[str, Any]: The backbone's entries.
        dict[str, Any]: The classifier's.
    """
    weights = formats.convert(inner, own)
    if f'outnorm{last_stage}.weight' in own and 'classifier.norm.weight' not in own:
        formats.promote_classifier_norm(weights, f'outnorm{last_stage}')
    names = [name for name in weights if name.startswith('classifier.') and name not in own]
    return weights, {name: weights.pop(name) for name in names}


def find_start(own: Mapping[str, Tensor], prefix: str, entries: Mapping[str, Any]) -> str:
    """Return the prefix of the backbone in a checkpoint: the one below which most of a model's backbone is found.

    Args:
        own (Mapping[str, Tensor]): The model's entries by plain names.
        prefix (str): Prefix of the backbone in the model.
        entries (Mapping[str, Any]): The checkpoint's entries by plain names.

    Returns:
        str: The prefix in the checkpoint.

    Raises:
        CheckpointError: If several fit equally well, none has the name that it has in the model, and more than one is
            not a moving average.
    """
    shapes = {name: value.shape for name, value in below(own, prefix).items()}

    def count(start: str) -> int:
        inner = formats.convert(below(entries, start), shapes)
        return sum(name in shapes and getattr(value, 'shape', None) == shapes[name] for name, value in inner.items())

    found = backbone_prefixes(entries)
    counts = {start: count(start) for start in dict.fromkeys([prefix, 'backbone.', '', *found])}
    most = max(counts.values())
    if most == 0:
        return found[0] if found else prefix if any(name.startswith(prefix) for name in entries) else ''
    best = [start for start, n in counts.items() if n == most]
    best = [start for start in best if not _AVERAGE.search(start)] or best
    if len(best) > 1 and best[0] not in (prefix, 'backbone.'):
        raise CheckpointError(
            f'the checkpoint has several backbones that fit, below {", ".join(best)}; choose one by `prefix`'
        )
    return best[0]


def _split_around(
    own: Mapping[str, Tensor], prefix: str, entries: Mapping[str, Any], start: str
) -> tuple[str, dict[str, Any], list[str]]:
    """Split what a checkpoint has around its backbone, by the model's names, from what is outside the model.

    A framework, a parallel wrapper or a larger model may add a prefix to all of it, in the checkpoint and in the model:
    the pair of prefixes below which most names agree is used. Copies of the model, such as its moving average or a
    teacher, are outside.
    """
    others = [name for name in entries if start and not name.startswith(start)]
    known = {name for name in own if not name.startswith(prefix)}

    def to_model(name: str, outer: str, root: str) -> str:
        name = name[len(outer) :]
        bare = root + without_module(name)
        return bare if bare in known else root + name

    def agree(pair: tuple[str, str]) -> int:
        return sum(name.startswith(pair[0]) and to_model(name, *pair) in known for name in others)

    pairs = [(outer, root) for outer in _parents(start) for root in _parents(prefix)]
    outer, root = max(pairs, key=agree)  # the innermost of equally good ones
    copies = tuple(filter(None, (other.removesuffix('backbone.') for other in backbone_prefixes(others))))
    around, outside = {}, []
    for name in others:
        target = to_model(name, outer, root)
        if name.startswith(outer) and (target in known or not name.startswith(copies)):
            around[target] = entries[name]
        else:
            outside.append(name)
    return root, around, outside


def _parents(prefix: str) -> list[str]:
    """Return the prefixes that contain one, the innermost first."""
    parts = prefix.split('.')[:-1]
    return [''.join(f'{part}.' for part in parts[:i]) for i in range(max(len(parts) - 1, 0), -1, -1)]


def _parts(names: Iterable[str], root: str) -> set[str]:
    """Return the modules around a backbone that have weights."""
    return {name.removeprefix(root).partition('.')[0] for name in names}
