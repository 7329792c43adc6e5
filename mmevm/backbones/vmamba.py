"""VMamba (arXiv 2401.10166): selective scans along four routes over the full map."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from mmevm.backbones.arguments import check_number, whole_number
from mmevm.backbones.staged import StagedBackbone
from mmevm.layers import ConvDownsample, ConvStem, PatchEmbed, PatchMerging, VSSBlock
from mmevm.registry import register_backbone

# 'v0' is the first design, the paper's; 'v2' trades states and gates for an MLP, and patches for strided convolutions.
_DESIGNS = {
    'v0': {'d_state': 16, 'mlp_ratio': 0.0, 'gate': True, 'conv_bias': True},
    'v2': {'d_state': 1, 'mlp_ratio': 4.0, 'gate': False, 'conv_bias': False},
}
_LINEAR = re.compile(r'layers\.\d+\.blocks\.\d+\.(op\.(in|out)_proj|mlp\.fc[12])\.weight')


def _arch(dim: int, depth: int, design: str, ssm_ratio: float) -> dict[str, Any]:
    """Return a variant of the family, all of which have two blocks in every stage but the third."""
    dims = [dim * 2**i for i in range(4)]
    return {'dims': dims, 'depths': [2, 2, depth, 2], 'design': design, 'ssm_ratio': ssm_ratio}


@register_backbone
class VMamba(StagedBackbone):
    """VMamba backbone.

    Args:
        arch (str or dict): A variant, or a dict with ``dims`` and ``depths``, one integer per stage, and optionally
            ``design``, 'v0' (the default) or 'v2', and ``ssm_ratio``, inner width of the mixers / width (by default 2).
            'tiny', 'small' and 'base' are of the first design. The others are of the second design; their
            names give ``ssm_ratio`` and the depth of the third stage.
        in_channels (int): Image channels.
        out_indices (Sequence[int]): Stages whose maps are returned, in ascending order, each after a LayerNorm of its
            own.
        drop_path_rate (float): Stochastic depth rate of the last block; it grows linearly from 0.
        frozen_stages (int): -1 freezes nothing, 0 the stem, n the stem and the first n stages.
        with_cp (bool): Trade time for memory by recomputing the blocks' activations in the backward pass.
        init_cfg (dict or list[dict], optional): MMEngine initialisation. ``type='Pretrained'`` takes upstream's files
            as they are and loads them strictly; see :func:`mmevm.checkpoint.load_checkpoint`.

    Raises:
        TypeError, ValueError: If an argument does not fit; the message says what was expected.
    """

    # Millions of parameters with the 1000-class head.
    arch_zoo: Mapping[str, dict[str, Any]] = {
        'tiny': _arch(96, 9, 'v0', 2.0),  # 22.9
        'small': _arch(96, 27, 'v0', 2.0),  # 44.4
        'base': _arch(128, 27, 'v0', 2.0),  # 76.3
        'tiny_s1l8': _arch(96, 8, 'v2', 1.0),  # 30.2
        'tiny_s2l5': _arch(96, 5, 'v2', 2.0),
        'small_s2l15': _arch(96, 15, 'v2', 2.0),  # 50.1
        'small_s1l20': _arch(96, 20, 'v2', 1.0),
        'base_s2l15': _arch(128, 15, 'v2', 2.0),  # 88.6
        'base_s1l20': _arch(128, 20, 'v2', 1.0),
    }

    def __init__(
        self,
        arch: str | dict[str, Any] = 'tiny',
        in_channels: int = 3,
        out_indices: Sequence[int] = (0, 1, 2, 3),
        drop_path_rate: float = 0.0,
        frozen_stages: int = -1,
        with_cp: bool = False,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        arch = self._resolve_arch(arch, optional=['design', 'ssm_ratio'])
        dims, design, ssm_ratio = arch['dims'], arch.get('design', 'v0'), arch.get('ssm_ratio', 2.0)
        if design not in _DESIGNS:
            raise ValueError(f"`design` must be 'v0' or 'v2', got {design!r}")
        check_number('ssm_ratio', ssm_ratio)
        if not ssm_ratio > 0:
            raise ValueError(f'`ssm_ratio` must be positive, got {ssm_ratio}')
        super().__init__(dims, arch['depths'], out_indices, frozen_stages, False, init_cfg)
        in_channels = whole_number('in_channels', in_channels, 1)

        def make_block(stage: int, drop_path: float) -> nn.Module:
            return VSSBlock(dims[stage], ssm_ratio=ssm_ratio, drop_path=drop_path, **_DESIGNS[design])

        stem, downsample = (ConvStem, ConvDownsample) if design == 'v2' else (PatchEmbed, PatchMerging)
        self._build(stem(in_channels, dims[0]), make_block, downsample, drop_path_rate, with_cp)

    def adapt(self, weights: dict[str, Any]) -> dict[str, str]:
        """Also reshape linear layers that some of upstream's versions saved as 1 x 1 convolutions."""
        kernels = [n for n, w in weights.items() if _LINEAR.fullmatch(n) and tuple(w.shape[2:]) == (1, 1)]
        for name in kernels:
            weights[name] = weights[name].flatten(1)
        return super().adapt(weights) | dict.fromkeys(kernels, 'adapted')
