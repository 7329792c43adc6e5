"""Upstream's checkpoint formats: pure functions from mapping to mapping.

Names here are those of :mod:`mmevm.backbones`. They follow upstream's, except that upstream numbers the layers of stems
and of VMamba's downsampling and, in EfficientVMamba's stages of inverted residuals, counts layout permutations as
layers.
"""

import re
from collections.abc import Collection, Mapping
from typing import Any

from torch import Tensor

from mmevm.checkpoint.names import backbone_prefixes, plain_entries

CLASSIFIER_HEAD, MMPRETRAIN_HEAD = 'classifier.head.', 'head.fc.'
"""Prefixes of the linear layer in a classification backbone, and in mmpretrain's classifier."""
WRAPPERS = ('state_dict', 'model', 'state_dict_ema', 'model_ema')
"""Top-level keys under which files keep their weights, the trained weights before their moving average."""

# The layers that upstream numbers in stems and in VMamba's downsampling.
_NUMBERS = {
    'patch_embed.proj.': 'patch_embed.0.',
    'patch_embed.norm.': 'patch_embed.2.',
    'patch_embed.proj2.': 'patch_embed.5.',
    'patch_embed.norm2.': 'patch_embed.7.',
    'downsample.conv.': 'downsample.1.',
    'downsample.post_norm.': 'downsample.3.',
}
_RULES = [
    *((re.compile(rf'^(layers\.\d+\.)?{re.escape(upstream)}'), rf'\1{ours}') for ours, upstream in _NUMBERS.items()),
    (re.compile(r'^norm\.'), 'classifier.norm.'),
    (re.compile(r'^head\.(?=weight|bias)'), 'classifier.head.'),
    (re.compile(r'^(layers\.\d+\.blocks\.\d+)\.ln_1\.'), r'\1.norm.'),
    (re.compile(r'^(layers\.\d+\.blocks\.\d+)\.self_attention\.'), r'\1.op.'),
    (re.compile(r'^(layers\.\d+)\.\d+\.(?=(?:norm|reduction)\.)'), r'\1.downsample.'),
]
_NUMBERED_BLOCK = re.compile(r'^(layers\.\d+)\.(\d+)\.')
_COLUMN_BLOCK = re.compile(r'^layers\.(\d+)\.mixer\.')


def unwrap(checkpoint: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the weights of a loaded file.

    They are the mapping under one of :data:`WRAPPERS`, else the first mapping with a backbone of mmevm, else the file's
    content itself.
    """
    for key in WRAPPERS:
        if isinstance(checkpoint.get(key), Mapping):
            return checkpoint[key]
    for value in checkpoint.values():
        if isinstance(value, Mapping) and backbone_prefixes(name for name in value if isinstance(name, str)):
            return value
    return checkpoint


def strip_prefix(state_dict: Mapping[str, Any]) -> dict[str, Any]:
    """Remove what ``torch.compile`` inserts, and the ``module.`` that parallel wrappers put before every name."""
    state_dict = plain_entries(state_dict)
    names = list(state_dict)
    while names and all(name.startswith('module.') for name in names):
        names = [name.removeprefix('module.') for name in names]
    return dict(zip(names, state_dict.values(), strict=True))


def rename(name: str) -> str:
    """Return mmevm's name of a backbone parameter; a name of mmevm is returned as it is."""
    for pattern, replacement in _RULES:
        name, count = pattern.subn(replacement, name)
        if count:
            break
    # Upstream's stages of inverted residuals are numbered from 1: layer 0 permutes the layout.
    return _NUMBERED_BLOCK.sub(lambda m: f'{m[1]}.blocks.{int(m[2]) - 1}.', name)


def convert(state_dict: Mapping[str, Any], own: Collection[str] = ()) -> dict[str, Any]:
    """Rename a bare backbone or classifier ``state_dict`` to mmevm's names. Idempotent.

    Args:
        state_dict (Mapping): Entries of a backbone.
        own (Collection[str]): Names to keep, because the module has them: a subclass may give its own parts names that
            upstream gives to others.

    Returns:
        dict: The same values in the same order.
    """
    return {name if name in own else rename(name): value for name, value in state_dict.items()}


def to_upstream(state_dict: Mapping[str, Any]) -> dict[str, Any]:
    """Rename a bare backbone or classifier ``state_dict`` to the names of upstream's released files. Idempotent.

    Vim's ``pos_grid``, which upstream's networks would refuse, is dropped.
    """
    weights = convert(state_dict)
    if any(_COLUMN_BLOCK.match(name) for name in weights):  # upstream's Vim differs in the head alone
        return {name.removeprefix('classifier.'): value for name, value in weights.items() if name != 'pos_grid'}
    depths: dict[str, int] = {}
    for name in weights:
        # Upstream numbers the layers of stages of inverted residuals only.
        if match := re.match(r'(layers\.\d+)\.blocks\.(\d+)\.conv_pw\.', name):
            depths[match[1]] = max(depths.get(match[1], 0), int(match[2]) + 1)
    return {_rename_back(name, depths): value for name, value in weights.items()}


def _rename_back(name: str, depths: Mapping[str, int]) -> str:
    for ours, upstream in _NUMBERS.items():
        name = name.replace(ours, upstream)
    match = re.match(r'(layers\.\d+)\.(?:blocks\.(\d+)|downsample)\.(.*)', name)
    if not match or match[1] not in depths:
        return name
    # Layer 0 and the one after the blocks permute the layout.
    number = int(match[2]) + 1 if match[2] else depths[match[1]] + 2
    return f'{match[1]}.{number}.{match[3]}'


def to_classifier(state_dict: Mapping[str, Any]) -> dict[str, Any]:
    """Rename a classification file of a backbone of mmevm to mmpretrain's classifier around that backbone.

    Raises:
        ValueError: If it has no backbone of mmevm.
    """
    weights = convert(strip_prefix(state_dict))
    found = signature(weights)
    if found is None:
        raise ValueError('the state dict has no backbone of mmevm')
    promote_classifier_norm(weights, f'outnorm{len(found[0]) - 1}')
    return {
        name.replace(CLASSIFIER_HEAD, MMPRETRAIN_HEAD)
        if name.startswith(CLASSIFIER_HEAD)
        else f'backbone.{name}': value
        for name, value in weights.items()
    }


def promote_classifier_norm(state_dict: dict[str, Any], last_norm: str) -> None:
    """Use the classifier's norm as the last output norm where the file has none, in place."""
    if not any(f'{last_norm}.{leaf}' in state_dict for leaf in ('weight', 'bias')):
        for leaf in ('weight', 'bias'):
            if f'classifier.norm.{leaf}' in state_dict:
                state_dict[f'{last_norm}.{leaf}'] = state_dict.pop(f'classifier.norm.{leaf}')


def signature(state_dict: Mapping[str, Tensor]) -> tuple[list[int], list[int]] | None:
    """Return widths and depths of the stages of a converted ``state_dict``, or None if it has no backbone of mmevm.

    A plain column of blocks counts as one stage.
    """
    # VMamba's later stem reaches the full width in its second convolution.
    stem = state_dict.get('patch_embed.proj2.weight', state_dict.get('patch_embed.proj.weight'))
    blocks: dict[int, set[int]] = {}
    for name in state_dict:
        if match := re.match(r'layers\.(\d+)\.blocks\.(\d+)\.', name):
            blocks.setdefault(int(match[1]), set()).add(int(match[2]))
        elif match := _COLUMN_BLOCK.match(name):
            blocks.setdefault(0, set()).add(int(match[1]))
    if stem is None or not blocks:
        return None
    return [stem.shape[0] * 2**i for i in sorted(blocks)], [len(blocks[i]) for i in sorted(blocks)]
