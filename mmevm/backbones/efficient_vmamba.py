"""EfficientVMamba (arXiv 2403.09977): atrous selective scans early, inverted residuals late."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from torch import Tensor, nn

from mmevm.backbones.base import Backbone
from mmevm.backbones.recompute import run_block
from mmevm.layers import EVSSBlock, InvertedResidual, PatchEmbed, PatchMerging
from mmevm.registry import register_backbone

_BLOCKS = ('evss', 'inres')


class Stage(nn.Module):
    """Blocks of one resolution, and the patch merging that leads to the next.

    Args:
        blocks (list[nn.Module]): Blocks on channels-last maps.
        downsample (nn.Module, optional): Patch merging; absent in the last stage.
        with_cp (bool): Recomputes the blocks' activations in the backward pass.
    """

    def __init__(self, blocks: list[nn.Module], downsample: nn.Module | None, with_cp: bool) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.downsample = downsample
        self.with_cp = with_cp

    def forward(self, x: Tensor) -> Tensor:
        """Args: x (Tensor[B, H, W, C]). Returns: Tensor[B, H, W, C], before patch merging."""
        for block in self.blocks:
            x = run_block(block, x, self.with_cp)
        return x


@register_backbone
class EfficientVMamba(Backbone):
    """EfficientVMamba backbone.

    The released checkpoints and their logs define the variants: small is 64 channels wide, where the paper's Table 1
    says 96.

    Args:
        arch (str or dict): 'tiny', 'small', 'base', or a dict with ``dims`` and ``depths``, one integer per stage, and
            optionally ``blocks``, 'evss' or 'inres' per stage (by default EVSS in the first half, as in the paper; its
            Tables 6 and 8 vary them).
        in_channels (int): Image channels.
        out_indices (Sequence[int]): Stages whose maps are returned, each after a LayerNorm of its own.
        step_size (int): Step of the atrous scan, at least 2.
        fusion (bool): The EVSS blocks' convolution branch and channel attention (the paper's Table 5).
        drop_path_rate (float): Stochastic depth rate of the last block; it grows linearly from 0.
        frozen_stages (int): -1 freezes nothing, 0 the stem, n the stem and the first n stages.
        norm_eval (bool): Keeps batch norms in evaluation mode while training.
        with_cp (bool): Trades time for memory by recomputing the blocks' activations in the backward pass.
        init_cfg (dict or list[dict], optional): MMEngine initialisation. ``type='Pretrained'`` takes upstream's files
            as they are and loads them strictly; see :func:`mmevm.checkpoint.load_checkpoint`.

    Raises:
        ValueError: If an argument does not fit; the message says what was expected.
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
        super().__init__(frozen_stages, norm_eval, init_cfg)
        self.dims, self.depths, self.block_types = self._parse_arch(arch)
        n_stages = len(self.dims)
        self.out_indices = tuple(out_indices)
        if not self.out_indices or not set(self.out_indices) <= set(range(n_stages)):
            raise ValueError(f'`out_indices` must name stages from 0 to {n_stages - 1}, got {out_indices}')
        if not -1 <= frozen_stages <= n_stages:
            raise ValueError(f'`frozen_stages` must be from -1 to {n_stages}, got {frozen_stages}')

        self.patch_embed = PatchEmbed(in_channels, self.dims[0])
        n_blocks = sum(self.depths)
        rates = iter(drop_path_rate * i / max(n_blocks - 1, 1) for i in range(n_blocks))
        self.layers = nn.ModuleList()
        for i, (dim, depth, block) in enumerate(zip(self.dims, self.depths, self.block_types, strict=True)):
            blocks = [self._make_block(block, dim, step_size, fusion, next(rates)) for _ in range(depth)]
            self.layers.append(Stage(blocks, PatchMerging(dim) if i < n_stages - 1 else None, with_cp))
        for i in self.out_indices:
            self.add_module(f'outnorm{i}', nn.LayerNorm(self.dims[i]))
        self.apply(self._init_module)
        self._freeze()

    @classmethod
    def _parse_arch(cls, arch: str | dict[str, Any]) -> tuple[list[int], list[int], list[str]]:
        if isinstance(arch, str):
            if arch not in cls.arch_zoo:
                names = ', '.join(map(repr, cls.arch_zoo))
                raise ValueError(f'`arch` must be one of {names} or a dict, got {arch!r}')
            arch = cls.arch_zoo[arch]
        unknown = set(arch) - {'dims', 'depths', 'blocks'}
        if unknown or not {'dims', 'depths'} <= set(arch):
            raise ValueError(f'`arch` must have the keys dims, depths and optionally blocks, got {sorted(arch)}')
        dims, depths = list(arch['dims']), list(arch['depths'])
        if not dims or len(dims) != len(depths):
            raise ValueError(f'`dims` and `depths` must have one entry per stage, got {dims} and {depths}')
        half = (len(dims) + 1) // 2
        blocks = list(arch.get('blocks', ['evss'] * half + ['inres'] * (len(dims) - half)))
        if len(blocks) != len(dims) or not set(blocks) <= set(_BLOCKS):
            raise ValueError(f"`blocks` must have 'evss' or 'inres' for each of {len(dims)} stages, got {blocks}")
        if any(b != 2 * a for a, b in pairwise(dims)):
            raise ValueError(f'`dims` must double from stage to stage, as patch merging does, got {dims}')
        return dims, depths, blocks

    @staticmethod
    def _make_block(kind: str, dim: int, step_size: int, fusion: bool, drop_path: float) -> nn.Module:
        if kind == 'evss':
            return EVSSBlock(dim, step_size, fusion, drop_path)
        return InvertedResidual(dim, drop_path)

    @staticmethod
    def _init_module(module: nn.Module) -> None:
        """Upstream's initialisation; convolutions and norms keep PyTorch's, scan parameters ES2D's own."""
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Computes the feature maps.

        Args:
            x (Tensor[B, in_channels, H, W]): Normalised images of any height and width from 32.

        Returns:
            tuple[Tensor[B, dims[i], H / 4 / 2^i, W / 4 / 2^i], ...]: One map for each of ``out_indices``, contiguous;
            the first division rounds down, the others up.
        """
        x = self.patch_embed(x)
        outs = []
        for i, stage in enumerate(self.layers):
            x = stage(x)
            if i in self.out_indices:
                norm = getattr(self, f'outnorm{i}')
                outs.append(norm(x).permute(0, 3, 1, 2).contiguous())  # [B, H, W, C] -> [B, C, H, W]
            if i == max(self.out_indices):
                break
            x = stage.downsample(x)
        return tuple(outs)

    def _frozen_modules(self) -> list[nn.Module]:
        if self.frozen_stages < 0:
            return []
        stages = range(self.frozen_stages)
        norms = [getattr(self, f'outnorm{i}') for i in stages if i in self.out_indices]
        return [self.patch_embed, *(self.layers[i] for i in stages), *norms]
