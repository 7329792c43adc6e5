"""Identifying a backbone of mmevm by the weights alone."""

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
    """Return a backbone of mmevm; on the meta device it has shapes only and takes no time to build."""
    with torch.device(device):
        return BACKBONES[architecture](arch, **(options or {}))


def signature(content: Mapping[str, Any]) -> Signature | None:
    """Return widths and depths of the backbone in a loaded file, or None if there is none of mmevm's."""
    weights = plain_entries(formats.unwrap(content))
    prefix = next(iter(backbone_prefixes(weights)), '')
    return formats.signature(formats.convert(below(weights, prefix)))


def identify(content: Mapping[str, Any]) -> str | None:
    """Return which released backbone the weights of a loaded file fit, such as 'EfficientVMamba tiny', or None.

    Files that lack the last stages, as of models that return earlier maps only, are identified if they fit a single
    variant.

    Args:
        content (Mapping): The content of a file, in any format that mmevm reads.
    """
    found = signature(content)
    if found is None:
        return None
    fitting = []
    for architecture, backbone in BACKBONES.items():
        for arch, parts in backbone.arch_zoo.items():
            full = (list(parts['dims']), list(parts['depths']))
            # Different networks share widths and depths; the names of their parameters tell them apart.
            if is_part(found, full) and _fits(build_backbone(architecture, arch, _options(found, full)), content):
                if found == full:
                    return f'{architecture} {arch}'
                fitting.append(f'{architecture} {arch}')
    return fitting[0] if len(fitting) == 1 else None


def is_part(found: Signature, full: Signature) -> bool:
    """Return whether widths and depths are a network's, its first stages' or, of a single stage, its first blocks'."""
    (dims, depths), (all_dims, all_depths) = found, full
    if len(all_dims) == 1:
        return dims == all_dims and depths[0] <= all_depths[0]
    return 0 < len(dims) and dims == all_dims[: len(dims)] and depths == all_depths[: len(dims)]


def _options(found: Signature, full: Signature) -> dict[str, Any]:
    """Return arguments for a backbone that has no more stages or blocks than were found."""
    if found == full:
        return {}
    dims, depths = found
    return {'out_indices': (depths[0] - 1 if len(full[0]) == 1 else len(dims) - 1,)}


def _fits(backbone: nn.Module, content: Mapping[str, Any]) -> bool:
    report = compare(backbone.state_dict(), backbone, '', content)[1]
    # Another image size is not another variant.
    misfits = [name for name in report.mismatched if not name.startswith('pos_embed')]
    return not (report.missing or report.unexpected or misfits)
