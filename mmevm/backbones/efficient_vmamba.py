"""EfficientVMamba (arXiv 2403.09977): atrous selective scans early, inverted residuals late."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from mmevm.backbones.arguments import flag, whole_number
from mmevm.backbones.staged import StagedBackbone
from mmevm.layers import EVSSBlock, InvertedResidual, PatchEmbed, PatchMerging
from mmevm.registry import register_backbone

_BLOCKS = ('evss', 'inres')
_NARROWEST = 8


@register_backbone
class EfficientVMamba(StagedBackbone):
    """EfficientVMamba backbone.

    The released checkpoints and their logs define the variants: small is 64 channels wide, where the paper's Table 1
    says 96.

    Args:
        arch (str or dict): 'tiny', 'small', 'base', or a dict with ``dims`` and ``depths``, one integer per stage, and
            optionally ``blocks``, 'evss' or 'inres' per stage (by default EVSS in the first half, as in the paper; its
            Tables 6 and 8 vary them).
        in_channels (int): Image channels.
        out_indices (Sequence[int]): Stages whose maps are returned, in ascending order, each after a LayerNorm of its
            own.
        step_size (int): Step of the atrous scan, at least 2.
        fusion (bool): The EVSS blocks' convolution branch and channel attention (the paper's Table 5).
        drop_path_rate (float): Stochastic depth rate of the last block; it grows linearly from 0.
        frozen_stages (int): -1 freezes nothing, 0 the stem, n the stem and the first n stages.
        norm_eval (bool): Keep batch norms in evaluation mode while training.
        with_cp (bool): Trade time for memory by recomputing the blocks' activations in the backward pass.
        init_cfg (dict or list[dict], optional): MMEngine initialisation. ``type='Pretrained'`` takes upstream's files
            as they are and loads them strictly; see :func:`mmevm.checkpoint.load_checkpoint`.

    Raises:
        TypeError, ValueError: If an argument does not fit; the message says what was expected.
    """

    arch_zoo: Mapping[str, dict[str, Any]] = {
        'tiny': {'dims': [48, 96, 192, 384], 'depths': [2, 2, 4, 2]},  # 6.1 M; 6.5 M with the 1000-class head
        'small': {'dims': [64, 128, 256, 512], 'depths': [2, 2, 4, 2]},  # 10.8 M; 11.3 M
        'base': {'dims': [96, 192, 384, 768], 'depths': [2, 2, 9, 2]},  # 32.9 M; 33.7 M
    }

    def __init__(
        self,
        arch: str | dict[str, Any] = 'tiny',
        in_channels: int = 3,
        out_indices: Sequence[int] = (0, 1, 2, 3),
        step_size: int = 2,
        fusion: bool = True,
        drop_path_rate: float = 0.0,
        frozen_stages: int = -1,
        norm_eval: bool = False,
        with_cp: bool = False,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        arch = self._resolve_arch(arch, optional=['blocks'])
        dims, blocks = arch['dims'], self._parse_blocks(arch)
        super().__init__(dims, arch['depths'], out_indices, frozen_stages, norm_eval, init_cfg)
        self.block_types = blocks
        in_channels = whole_number('in_channels', in_channels, 1)
        step_size = whole_number('step_size', step_size)
        if flag('fusion', fusion) and blocks[0] == 'evss' and dims[0] < _NARROWEST:
            raise ValueError(
                f'`dims` must start with at least {_NARROWEST} for the channel attention, an eighth as wide, or have '
                f'fusion=False, got {dims}'
            )

        def make_block(stage: int, drop_path: float) -> nn.Module:
            if blocks[stage] == 'evss':
                return EVSSBlock(dims[stage], step_size, fusion, drop_path)
            return InvertedResidual(dims[stage], drop_path)

        self._build(PatchEmbed(in_channels, dims[0]), make_block, PatchMerging, drop_path_rate, with_cp)

    @staticmethod
    def _parse_blocks(arch: dict[str, Any]) -> list[str]:
        stages = len(arch['dims'])
        half = (stages + 1) // 2
        blocks = list(arch.get('blocks', ['evss'] * half + ['inres'] * (stages - half)))
        if len(blocks) != stages or not set(blocks) <= set(_BLOCKS):
            raise ValueError(f"`blocks` must have 'evss' or 'inres' for each of {stages} stages, got {blocks}")
        return blocks
