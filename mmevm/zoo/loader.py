"""Checkpoints of the zoo by name: in Python, and as ``mmevm://NAME`` wherever MMEngine loads one."""

from typing import Any

from mmengine.runner import CheckpointLoader
from torch import nn

from mmevm.checkpoint import formats
from mmevm.checkpoint.identify import build_backbone
from mmevm.checkpoint.load import OPENERS, load_checkpoint
from mmevm.checkpoint.weights_only import load_file, load_from_local
from mmevm.mim import find_root
from mmevm.zoo.entries import Entry, find_entry
from mmevm.zoo.fetching import fetch


def load(name: str, task: str | None = None) -> nn.Module:
    """Return a network with the released weights, in evaluation mode.

    Args:
        name (str): A name of :data:`mmevm.zoo.ENTRIES`.
        task (str, optional): By default the backbone alone, which returns its four maps (the output norms of the first
            three, which classification files lack, are as initialised). The entry's own task, such as
            'classification', gives the complete model of its config, in this case mmpretrain's classifier.

    Returns:
        nn.Module: The model, with every weight of the file.

    Raises:
        ValueError: If the zoo has no such name, or no weights of it for ``task``.
        NotImplementedError: If mmevm has no backbone for these weights yet.
        CheckpointError: If the file cannot be downloaded or does not fit.
    """
    model = build(name, task)
    report = load_checkpoint(model, fetch(find_entry(name).name))
    if task:
        report.require_whole(name)
    return model.eval()


def build(name: str, task: str | None = None) -> nn.Module:
    """Return a network of the zoo with random weights, in training mode.

    Args:
        name (str): A name of :data:`mmevm.zoo.ENTRIES`.
        task (str, optional): As in :func:`load`.

    Returns:
        nn.Module: The model.

    Raises:
        ValueError, NotImplementedError: As :func:`load`.
    """
    entry = find_entry(name)
    if not entry.available:
        raise NotImplementedError(
            f'{entry.name}: mmevm has no {entry.architecture} backbone yet; mmevm.zoo.fetch gives the file itself'
        )
    if task not in (None, entry.task):
        raise ValueError(
            f'`task` must be None or {entry.task!r} for {entry.name}, got {task!r}: no such weights were '
            'released; heads would be random, train them: see configs/'
        )
    if task is None:
        return build_backbone(entry.architecture, entry.arch, entry.options, device='cpu')
    return _build_model(entry)


def _build_model(entry: Entry) -> nn.Module:
    from mmengine.config import Config
    from mmengine.registry import MODELS, DefaultScope

    cfg = Config.fromfile(find_root() / entry.config)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        return MODELS.build(cfg.model)


@CheckpointLoader.register_scheme(prefixes='mmevm://')
def load_for_mmengine(filename: str, map_location: Any = None) -> dict[str, Any]:
    """MMEngine's loader of ``mmevm://NAME``: renames classification weights to those of mmpretrain's classifier.

    Files of detectors and segmentors, and of architectures that mmevm does not have, keep their names.
    """
    entry = find_entry(filename)
    content = load_from_local(str(fetch(entry.name)), map_location)
    if not entry.available or entry.task != 'classification':
        return content
    return {'state_dict': formats.to_classifier(content[entry.key]), 'meta': {'source': entry.url}}


OPENERS['mmevm'] = lambda name: load_file(fetch(name))
