"""Which backbone of mmevm weights are of, read off the weights themselves."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from mmevm.checkpoint import formats
from mmevm.checkpoint.load import fit_checkpoint
from mmevm.checkpoint.names import backbone_prefixes, below, plain_entries


def build_backbone(
    architecture: str, arch: str, options: Mapping[str, Any] | None = None, device: str = 'meta'
) -> nn.Module:
    """A backbone of mmevm; on the meta device it has shapes alone, and takes no time."""
    from mmevm import backbones  # they load their own weights

    with torch.device(device):
        return getattr(backbones, architecture)(arch, **(options or {}))


def signature(content: Mapping[str, Any]) -> tuple[list[int], list[int]] | None:
    """Widths and depths of the backbone in a loaded file, alone or in a model; None if it holds none of mmevm's."""
    weights = plain_entries(formats.unwrap(content))
    prefix = next(iter(backbone_prefixes(weights)), '')
    return formats.signature(formats.convert(below(weights, prefix)))


def identify(content: Mapping[str, Any]) -> str | None:
    """Which released backbone the weights of a loaded file fit, such as 'EfficientVMamba tiny', or None.

    Args:
        content (Mapping): What is in a file, in any format that mmevm reads.
    """
    from mmevm import backbones

    found = signature(content)
    for architecture in backbones.__all__:
        for arch, parts in getattr(backbones, architecture).arch_zoo.items():
            # Different networks share widths and depths; the names of their parameters tell them apart.
            if found != (list(parts['dims']), list(parts['depths'])):
                continue
            if not fit_checkpoint(build_backbone(architecture, arch), content, strict=False)[1].problems:
                return f'{architecture} {arch}'
    return None
