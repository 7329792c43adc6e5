"""Backbones of several stages, each at half the resolution of the one before."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import Any

from torch import Tensor, nn

from mmevm.backbones.arguments import drop_path_rates, flag, output_indices, whole_number
from mmevm.backbones.base import Backbone
from mmevm.backbones.recompute import run_block
from mmevm.layers.basic import norm_tokens

_STAGE = re.compile(r'layers\.(\d+)\.')
_BLOCK = re.compile(r'layers\.(\d+)\.blocks\.(\d+)\.')
_NORM = re.compile(r'outnorm(\d)\.(?:weight|bias)')


class Stage(nn.Module):
    """Blocks of one resolution, and the downsampling that leads to the next.

    Args:
        blocks (list[nn.Module]): Blocks on channels-last maps.
        downsample (nn.Module, optional): What halves the map and doubles its width; absent in the last stage that is
            needed.
        with_cp (bool): Recomputes the blocks' activations in the backward pass.
    """

    def __init__(self, blocks: list[nn.Module], downsample: nn.Module | None, with_cp: bool) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.downsample = downsample
        self.with_cp = with_cp

    def forward(self, x: Tensor) -> Tensor:
        """Args: x (Tensor[B, H, W, C]). Returns: Tensor[B, H, W, C], before the downsampling."""
        for block in self.blocks:
            x = run_block(block, x, self.with_cp)
        return x


class StagedBackbone(Backbone):
    """A stem, stages, and a LayerNorm for each map that is returned.

    Stages behind the last of ``out_indices`` are not built: nothing would run or train them. ``dims``, ``depths`` and
    the stochastic depth rates are nevertheless those of the complete network.

    A subclass calls :meth:`_build` to create them.

    Args:
        dims (list[int]): Width of each stage.
        depths (list[int]): Blocks of each stage.
        out_indices (Sequence[int]): Stages whose maps are returned, in ascending order.
        frozen_stages (int): -1 freezes nothing, 0 the stem, n the stem and the first n stages.
        norm_eval (bool): Keeps batch norms in evaluation mode while training.
        init_cfg (dict or list[dict], optional): See :class:`Backbone`.

    Raises:
        TypeError, ValueError: An argument does not fit, as an ``out_indices`` or ``frozen_stages`` that names no stage.
    """

    def __init__(
        self,
        dims: list[int],
        depths: list[int],
        out_indices: Sequence[int],
        frozen_stages: int,
        norm_eval: bool,
        init_cfg: dict | list[dict] | None,
    ) -> None:
        frozen_stages = whole_number('frozen_stages', frozen_stages, -1, len(dims))
        super().__init__(frozen_stages, norm_eval, init_cfg)
        self.dims, self.depths = dims, depths
        self.out_indices = output_indices(out_indices, len(dims), 'stages')

    @classmethod
    def _resolve_arch(cls, arch: str | dict[str, Any], optional: Sequence[str] = ()) -> dict[str, Any]:
        resolved = super()._resolve_arch(arch, optional)
        if any(b != 2 * a for a, b in pairwise(resolved['dims'])):
            raise ValueError(f'`dims` must double from stage to stage, as patch merging does, got {resolved["dims"]}')
        return resolved

    def _build(
        self,
        stem: nn.Module,
        make_block: Callable[[int, float], nn.Module],
        make_downsample: Callable[[int], nn.Module],
        drop_path_rate: float,
        with_cp: bool,
    ) -> None:
        """Build the modules, initialised as upstream, and freeze those that ``frozen_stages`` names.

        Args:
            stem (nn.Module): Tensor[B, in_channels, H, W] -> Tensor[B, H', W', dims[0]].
            make_block (Callable): Makes a block of a stage, given the stage's index and the stochastic depth rate.
            make_downsample (Callable): Makes what follows a stage of the given width.
            drop_path_rate (float): Stochastic depth rate of the last block; it grows linearly from 0.
            with_cp (bool): See :class:`Stage`.
        """
        flag('with_cp', with_cp)
        rates = iter(drop_path_rates(drop_path_rate, sum(self.depths)))
        self.patch_embed = stem
        self.layers = nn.ModuleList()
        last = max(self.out_indices)
        for i in range(last + 1):
            blocks = [make_block(i, next(rates)) for _ in range(self.depths[i])]
            self.layers.append(Stage(blocks, make_downsample(self.dims[i]) if i < last else None, with_cp))
        for i in self.out_indices:
            self.add_module(f'outnorm{i}', nn.LayerNorm(self.dims[i]))
        self.apply(self._init_module)
        self._freeze()

    @staticmethod
    def _init_module(module: nn.Module) -> None:
        """Initialise as upstream; convolutions and norms keep PyTorch's initialisation, scan parameters the mixers'."""
        # The meta device takes long to draw values, and keeps none.
        if isinstance(module, nn.Linear) and not module.weight.is_meta:
            nn.init.trunc_normal_(module.weight, std=0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Compute the feature maps.

        Args:
            x (Tensor[B, in_channels, H, W]): Normalised images of any height and width from 32.

        Returns:
            tuple[Tensor[B, dims[i], H / 4 / 2^i, W / 4 / 2^i], ...]: One map for each of ``out_indices``, contiguous;
            patches that do not overlap round the first division down, all else rounds up.
        """
        x = self.patch_embed(x)
        outs = []
        for i, stage in enumerate(self.layers):
            x = stage(x)
            if i in self.out_indices:
                norm = getattr(self, f'outnorm{i}')
                outs.append(norm_tokens(x, norm).permute(0, 3, 1, 2).contiguous())  # [B, H, W, C] -> [B, C, H, W]
            if stage.downsample is not None:
                x = stage.downsample(x)
        return tuple(outs)

    def not_built(self, names: Iterable[str]) -> list[str]:
        """Return names in stages behind the last of ``out_indices``, and in norms of other maps; see the base class."""
        names = list(names)
        blocks = {match.groups() for name in names if (match := _BLOCK.match(name))}
        # Stages of another depth are another network's.
        depths = Counter(int(stage) for stage, _ in blocks)
        behind = {i for i in range(len(self.layers), len(self.dims)) if depths[i] == self.depths[i]}
        last = len(self.layers) - 1

        def is_left_out(name: str) -> bool:
            if match := _NORM.fullmatch(name):
                norm = f'outnorm{match[1]}'
                is_complete = {f'{norm}.weight', f'{norm}.bias'} <= set(names)  # part of one is damage
                return is_complete and int(match[1]) < len(self.dims) and not hasattr(self, norm)
            match = _STAGE.match(name)
            if not match:
                return False
            leads_on = last < len(self.dims) - 1 and name.startswith(f'layers.{last}.downsample.')
            return int(match[1]) in behind or leads_on

        return [name for name in names if is_left_out(name)]

    def _frozen_modules(self) -> list[nn.Module]:
        if self.frozen_stages < 0:
            return []
        stages = range(min(self.frozen_stages, len(self.layers)))
        norms = [getattr(self, f'outnorm{i}') for i in stages if i in self.out_indices]
        return [self.patch_embed, *(self.layers[i] for i in stages), *norms]
