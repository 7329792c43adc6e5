"""Names of weights without what compilers, parallel wrappers and training frameworks add to them."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor, nn

from mmevm.checkpoint.weights_only import CheckpointError

# Segments that torch.compile, FSDP and activation checkpointing insert anywhere in a name.
_WRAPPED = re.compile(r'(?<![^.])(?:_fsdp_wrapped_module|_checkpoint_wrapped_module)\.')
_COMPILED = re.compile(r'(?<![^.])_orig_mod\.')
_PARALLEL = re.compile(r'(?<![^.])module\.')


def plain(name: str) -> str:
    """Return a name without what ``torch.compile``, FSDP and activation checkpointing insert."""
    return _COMPILED.sub('', _WRAPPED.sub('', name))


def without_module(name: str) -> str:
    """Return a name without the ``module.`` of parallel wrappers and moving averages, wherever it is."""
    return _PARALLEL.sub('', name)


def plain_entries(state_dict: Mapping[Any, Any]) -> dict[str, Any]:
    """Return a state dict by plain names.

    Raises:
        CheckpointError: If a key is not a name.
    """
    for name in state_dict:
        if not isinstance(name, str):
            raise CheckpointError(f'the weights must be given by name, got the key {name!r:.80}')
    return {plain(name): value for name, value in state_dict.items()}


def loading_keys(module: nn.Module) -> dict[str, tuple[str, Tensor]]:
    """Return a module's parameters and buffers by plain name, each with its key in ``load_state_dict``.

    FSDP and activation checkpointing insert their segments themselves while loading, ``torch.compile`` does not.
    """
    tensors = [*module.named_parameters(remove_duplicate=False), *module.named_buffers(remove_duplicate=False)]
    return {plain(name): (_WRAPPED.sub('', name), tensor) for name, tensor in tensors}


def backbone_prefixes(names: Iterable[str]) -> list[str]:
    """Return every prefix with a stem and a first layer below it, as in a backbone of mmevm; the shortest first."""
    matches = [re.match(r'((?:[^.]+\.)*?)(layers\.0|patch_embed)\.', name) for name in names]
    stems, layers = ({m[1] for m in matches if m and m[2].startswith(part)} for part in ('patch', 'layers'))
    return sorted(stems & layers, key=lambda prefix: (prefix.count('.'), prefix))


def below(state_dict: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """Return the entries below a prefix, without the prefix."""
    return {name[len(prefix) :]: value for name, value in state_dict.items() if name.startswith(prefix)}


def select(state_dict: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """Return the entries below a user's prefix, which may itself be below a framework's.

    Raises:
        CheckpointError: If there are none, or several prefixes end with it.
    """
    prefix = plain(prefix.rstrip('.') + '.')
    pattern = re.compile(rf'((?:[^.]+\.)*?){re.escape(prefix)}')
    outer = dict.fromkeys(m[1] for m in map(pattern.match, state_dict) if m)
    if '' in outer or len(outer) == 1:
        return below(state_dict, ('' if '' in outer else next(iter(outer))) + prefix)
    if outer:
        raise CheckpointError(
            f'the checkpoint has several prefixes that end with {prefix!r}: {", ".join(outer)}; '
            'give one of them in full'
        )
    raise CheckpointError(
        f'no entry of the checkpoint starts with {prefix!r}; it has {", ".join(sorted(state_dict)[:5])} …'
    )
