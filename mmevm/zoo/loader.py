"""Zoo names where checkpoints are named: in Python, and as ``mmevm://NAME`` wherever MMEngine loads one."""

from pathlib import Path
from typing import Any

from mmengine.runner import CheckpointLoader
from torch import Tensor, nn

from mmevm.checkpoint import formats
from mmevm.checkpoint.identify import build_backbone
from mmevm.checkpoint.load import OPENERS, load_checkpoint
from mmevm.checkpoint.weights_only import load_file, load_from_local
from mmevm.zoo.entries import Entry, find_entry
from mmevm.zoo.fetching import fetch

_ROOT = Path(__file__).resolve().parents[1]


def load(name: str, task: str | None = None) -> nn.Module:
    """A network with the released weights, in evaluation mode.

    Args:
        name (str): A name of :data:`mmevm.zoo.ENTRIES`.
        task (str, optional): By default the bare backbone, which returns its four maps (the output norms of the first
            three, which classification files lack, are fresh). The entry's own task, such as 'classification', gives
            the whole model of its config, in this case mmpretrain's classifier.

    Returns:
        nn.Module: The model; every weight of the file is in it, or the load fails.

    Raises:
        ValueError: If the zoo has no such name, or no weights of it for ``task``.
        NotImplementedError: If mmevm has no backbone for these weights yet.
        CheckpointError: If the file cannot be had or does not fit.
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
        model = build_backbone(entry.architecture, entry.arch, entry.options, device='cpu')
    else:
        model = _build_whole(entry)
    report = load_checkpoint(model, fetch(entry.name))
    if task:
        report.require_whole(entry.name)
    return model.eval()


def find_config(entry: Entry) -> Path:
    """The config file of an entry, in an installation (``.mim``) or in a checkout.

    Raises:
        FileNotFoundError: If mmevm was installed without its configs.
    """
    for folder in (_ROOT / '.mim', _ROOT.parent):
        if (folder / entry.config).is_file():
            return folder / entry.config
    raise FileNotFoundError(f'{entry.config} is neither in {_ROOT / ".mim"} nor in {_ROOT.parent}')


def _build_whole(entry: Entry) -> nn.Module:
    from mmengine.config import Config
    from mmengine.registry import MODELS, DefaultScope

    cfg = Config.fromfile(find_config(entry))
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        return MODELS.build(cfg.model)


def as_classifier(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """Renames upstream's classification weights to those of mmpretrain's classifier around mmevm's backbone."""
    weights = formats.convert(formats.strip_prefix(state_dict))
    found = formats.signature(weights)
    assert found, 'the zoo has verified the file'
    formats.promote_classifier_norm(weights, f'outnorm{len(found[0]) - 1}')
    return {_in_classifier(name): value for name, value in weights.items()}


def _in_classifier(name: str) -> str:
    if name.startswith('classifier.head.'):
        return name.replace('classifier.head.', 'head.fc.')
    return f'backbone.{name}'


@CheckpointLoader.register_scheme(prefixes='mmevm://')
def load_for_mmengine(filename: str, map_location: Any = None) -> dict[str, Any]:
    """MMEngine's loader of ``mmevm://NAME``: names as in mmpretrain's classifier, whose backbone any detector has too.

    Files of whole detectors and segmentors, and of architectures that mmevm does not have, keep their names.
    """
    entry = find_entry(filename)
    content = load_from_local(str(fetch(entry.name)), map_location)
    if not entry.available or entry.task != 'classification':
        return content
    return {'state_dict': as_classifier(content[entry.key]), 'meta': {'source': entry.url}}


OPENERS['mmevm'] = lambda name: load_file(fetch(name))
