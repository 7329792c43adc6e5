"""Which backbone of mmevm weights are of, read off the weights themselves."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from mmevm.checkpoint import formats
from mmevm.checkpoint.fit import compare
from mmevm.checkpoint.names import backbone_prefixes, below, plain_entries
from mmevm.registry import BACKBONES

Signature = tuple[list[int], list[int]]


def build_backbone(
    architecture: str, arch: str, options: Mapping[str, Any] | None = None, device: str = 'meta'
) -> nn.Module:
    """A backbone of mmevm; on the meta device it has shapes alone, and takes no time."""
    with torch.device(device):
        return BACKBONES[architecture](arch, **(options or {}))


def signature(content: Mapping[str, Any]) -> Signature | None:
    """Widths and depths of the backbone in a loaded file, alone or in a model; None if it holds none of mmevm's."""
    weights = plain_entries(formats.unwrap(content))
    prefix = next(iter(backbone_prefixes(weights)), '')
    return formats.signature(formats.convert(below(weights, prefix)))


def identify(content: Mapping[str, Any]) -> str | None:
    """Which released backbone the weights of a loaded file fit, such as 'EfficientVMamba tiny', or None.

    Files that lack the last stages, which models that return earlier maps alone do not have, are recognised where they
    fit one variant and no other.

    Args:
        content (Mapping): What is in a file, in any format that mmevm reads.
    """
    found = signature(content)
    if found is None:
        return None
    fitting = []
    for architecture, backbone in BACKBONES.items():
        for arch, parts in backbone.arch_zoo.items():
            whole = (list(parts['dims']), list(parts['depths']))
            # Different networks share widths and depths; the names of their parameters tell them apart.
            if is_part(found, whole) and _fits(build_backbone(architecture, arch, _options(found, whole)), content):
                if found == whole:
                    return f'{architecture} {arch}'
                fitting.append(f'{architecture} {arch}')
    return fitting[0] if len(fitting) == 1 else None


def is_part(found: Signature, whole: Signature) -> bool:
    """Whether widths and depths are those of a network, or of its first stages, or of its only stage's first blocks."""
    (dims, depths), (all_dims, all_depths) = found, whole
    if len(all_dims) == 1:
        return dims == all_dims and depths[0] <= all_depths[0]
    return 0 < len(dims) and dims == all_dims[: len(dims)] and depths == all_depths[: len(dims)]


def _options(found: Signature, whole: Signature) -> dict[str, Any]:
    """Arguments of a backbone that has no more stages or blocks than were found."""
    if found == whole:
        return {}
    dims, depths = found
    return {'out_indices': (depths[0] - 1 if len(whole[0]) == 1 else len(dims) - 1,)}


def _fits(backbone: nn.Module, content: Mapping[str, Any]) -> bool:
    report = compare(backbone.state_dict(), backbone, '', content)[1]
    # Images of another shape are no other variant.
    misfits = [name for name in report.mismatched if not name.startswith('pos_embed')]
    return not (report.missing or report.unexpected or misfits)
