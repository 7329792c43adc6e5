"""Vision Mamba (Vim, arXiv 2401.09417): a plain stack of bidirectional selective scans."""

import re
from collections.abc import Iterable, Mapping, Sequence
from numbers import Integral
from typing import Any

import torch
from torch import Tensor, nn

from mmevm.backbones.adaptation import adapt_positions
from mmevm.backbones.arguments import drop_path_rates, flag, output_indices, whole_number, whole_numbers
from mmevm.backbones.base import Backbone
from mmevm.backbones.recompute import run_block
from mmevm.layers import PatchEmbed, RMSNorm, VimBlock
from mmevm.layers.vim import insert_middle, resize_position, split_middle
from mmevm.registry import register_backbone

_BLOCK = re.compile(r'layers\.(\d+)\.')
_OUT_TYPES = ('cls_token', 'avg_featmap', 'featmap', 'plain_featmap')


@register_backbone
class Vim(Backbone):
    """Vim backbone: patches, a class token in their middle, absolute positions, and blocks of one width.

    Blocks behind the last of ``out_indices`` are not built: nothing would run or train them. ``depths`` and the
    stochastic depth rates are nevertheless those of the complete network.

    The buffer ``pos_grid`` stores the grid of patches of the position embedding in checkpoints, so that they can be
    loaded for images of any other size. Checkpoints without it, such as upstream's, are assumed to be for square
    images; where that is ambiguous, they are refused unless ``checkpoint_grid`` is given.

    Args:
        arch (str or dict): 'tiny', 'small', or a dict with ``dims`` and ``depths``, lists of one integer each.
        in_channels (int): Image channels.
        img_size (int or tuple[int, int]): Height and width that the position embedding is for. Images of other sizes,
            and checkpoints for them, are served by interpolating it.
        patch_stride (int): Distance between neighbouring patches of 16 x 16 pixels: 16, or 8 for the finer variants.
        out_indices (Sequence[int]): Blocks whose tokens are returned, in ascending order; negative ones count
            from the last.
        out_type (str): 'cls_token' returns the class token and 'avg_featmap' the patches' mean, for classification;
            'featmap' returns maps, and 'plain_featmap' one map without a tuple, as mmdet's ``SimpleFPN`` expects.
        drop_path_rate (float): Stochastic depth rate of the last block; it grows linearly from 0.
        frozen_stages (int): -1 freezes nothing, 0 the patch and position embeddings and the class token, n these and
            the first n blocks.
        with_cp (bool): Trade time for memory by recomputing the blocks' activations in the backward pass.
        init_cfg (dict or list[dict], optional): MMEngine initialisation. ``type='Pretrained'`` takes upstream's files
            as they are and loads them strictly; see :func:`mmevm.checkpoint.load_checkpoint`.
        checkpoint_grid (tuple[int, int], optional): Height and width, in patches, of the position embedding of
            checkpoints that do not store it. Those of mmevm do.

    Raises:
        TypeError, ValueError: If an argument does not fit; the message says what was expected.
    """

    arch_zoo: Mapping[str, dict[str, Any]] = {
        'tiny': {'dims': [192], 'depths': [24]},  # 7.0 M; 7.1 M with the 1000-class head
        'small': {'dims': [384], 'depths': [24]},  # 25.4 M; 25.8 M
    }
    patch_size = 16

    def __init__(
        self,
        arch: str | dict[str, Any] = 'tiny',
        in_channels: int = 3,
        img_size: int | tuple[int, int] = 224,
        patch_stride: int = 16,
        out_indices: Sequence[int] = (-1,),
        out_type: str = 'cls_token',
        drop_path_rate: float = 0.0,
        frozen_stages: int = -1,
        with_cp: bool = False,
        init_cfg: dict | list[dict] | None = None,
        checkpoint_grid: tuple[int, int] | None = None,
    ) -> None:
        arch = self._resolve_arch(arch)
        frozen_stages = whole_number('frozen_stages', frozen_stages, -1, arch['depths'][0])
        super().__init__(frozen_stages, norm_eval=False, init_cfg=init_cfg)
        self.dims, self.depths = arch['dims'], arch['depths']
        dim, depth = self.dims[0], self.depths[0]
        self.out_indices = self._parse_outputs(out_indices, out_type, depth)
        self.out_type = out_type
        height, width = self._parse_size(img_size)
        patch_stride = whole_number('patch_stride', patch_stride, 1, self.patch_size)
        in_channels = whole_number('in_channels', in_channels, 1)
        rates = drop_path_rates(drop_path_rate, depth)
        self.grid = tuple((side - self.patch_size) // patch_stride + 1 for side in (height, width))
        self.checkpoint_grid = self._parse_grid(checkpoint_grid)
        self.with_cp = flag('with_cp', with_cp)

        self.patch_embed = PatchEmbed(in_channels, dim, self.patch_size, patch_stride, norm=False)
        self.cls_token = nn.Parameter(torch.empty(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.empty(1, self.grid[0] * self.grid[1] + 1, dim))
        self.register_buffer('pos_grid', torch.tensor(self.grid))
        self.layers = nn.ModuleList(VimBlock(dim, rate) for rate in rates[: max(self.out_indices) + 1])
        self.norm_f = RMSNorm(dim) if len(self.layers) == depth else None
        self._init_parameters()
        self._freeze()

    @classmethod
    def _resolve_arch(cls, arch: str | dict[str, Any], optional: Sequence[str] = ()) -> dict[str, Any]:
        resolved = super()._resolve_arch(arch, optional)
        dims, depths = resolved['dims'], resolved['depths']
        if len(dims) != 1:
            raise ValueError(f'`dims` and `depths` must have one entry, as Vim has one stage, got {dims} and {depths}')
        return resolved

    @staticmethod
    def _parse_outputs(out_indices: Sequence[int], out_type: str, depth: int) -> tuple[int, ...]:
        if out_type not in _OUT_TYPES:
            raise ValueError(f'`out_type` must be one of {", ".join(map(repr, _OUT_TYPES))}, got {out_type!r}')
        indices = output_indices(out_indices, depth, 'blocks', negative=True)
        if out_type == 'plain_featmap' and len(indices) > 1:
            raise ValueError(f"`out_type='plain_featmap'` returns one map, got `out_indices` {out_indices}")
        return indices

    @classmethod
    def _parse_size(cls, img_size: int | Sequence[int]) -> list[int]:
        sides = whole_numbers('img_size', [img_size] * 2 if isinstance(img_size, Integral) else img_size)
        if len(sides) != 2 or min(sides) < cls.patch_size:
            raise ValueError(f'`img_size` must be at least {cls.patch_size}, or height and width, got {img_size}')
        return sides

    @staticmethod
    def _parse_grid(grid: Sequence[int] | None) -> tuple[int, int] | None:
        if grid is None:
            return None
        grid = tuple(grid)
        if len(grid) != 2 or not all(isinstance(side, int) and side > 0 for side in grid):
            raise ValueError(f'`checkpoint_grid` must be two positive integers, height and width, got {grid}')
        return grid

    def _init_parameters(self) -> None:
        """Initialise as upstream; other linear layers and convolutions keep PyTorch's initialisation."""
        for parameter in (self.cls_token, self.pos_embed):
            nn.init.trunc_normal_(parameter, std=0.02)
        conv = self.patch_embed.proj
        # LeCun's normal distribution, truncated at two of its deviations, which shrinks it by 0.88.
        std = conv.weight[0].numel() ** -0.5 / 0.87962566103423978
        nn.init.trunc_normal_(conv.weight, std=std, a=-2 * std, b=2 * std)
        nn.init.zeros_(conv.bias)
        for block in self.layers:
            with torch.no_grad():
                block.mixer.out_proj.weight /= self.depths[0] ** 0.5

    def forward(self, x: Tensor) -> tuple[Tensor, ...] | Tensor:
        """Compute class tokens, mean patches or feature maps.

        Args:
            x (Tensor[B, in_channels, H, W]): Normalised images of any height and width from 16.

        Returns:
            tuple[Tensor[B, C], ...] or, of maps, tuple[Tensor[B, C, H', W'], ...]: One entry for each of
            ``out_indices``; H' = (H - 16) // patch_stride + 1 and W' likewise. The last block's tokens are normalised.
            For 'plain_featmap' the map itself.
        """
        x = self.patch_embed(x)
        grid = tuple(x.shape[1:3])
        x = insert_middle(x.flatten(1, 2), self.cls_token.expand(x.shape[0], -1, -1), grid)
        x = x + resize_position(self.pos_embed, self.grid, grid)
        # The sum over all blocks is kept in float32: half precision would lose what the later ones add.
        x = x.to(torch.promote_types(x.dtype, torch.float32))
        outs = []
        for i, block in enumerate(self.layers):
            x = run_block(block, x, self.with_cp)
            if i in self.out_indices:
                out = self.norm_f(x) if i == self.depths[0] - 1 else x.to(self.cls_token.dtype)
                outs.append(self._output(out, grid))
        return outs[0] if self.out_type == 'plain_featmap' else tuple(outs)

    def _output(self, x: Tensor, grid: tuple[int, int]) -> Tensor:
        patches, token = split_middle(x, grid)
        if self.out_type == 'cls_token':
            return token
        if self.out_type == 'avg_featmap':
            return patches.mean(dim=1)
        return patches.transpose(1, 2).unflatten(2, grid).contiguous()  # [B, H * W, C] -> [B, C, H, W]

    def adapt(self, weights: dict[str, Any]) -> dict[str, str]:
        """Also interpolates the position embedding of a checkpoint for images of another size; see the base class."""
        changes = super().adapt(weights)
        changes |= adapt_positions(weights, self.dims[0], self.grid, self.checkpoint_grid)
        weights['pos_grid'] = torch.tensor(self.grid)  # what the embedding is for from here on
        return changes | {'pos_grid': ''}

    def not_built(self, names: Iterable[str]) -> list[str]:
        """Return names in blocks behind the last of ``out_indices`` and in the norm after them; see the base class."""
        names = list(names)
        # A norm behind fewer blocks is another network's.
        has_all = any(name.startswith(f'layers.{self.depths[0] - 1}.') for name in names)

        def is_left_out(name: str) -> bool:
            match = _BLOCK.match(name)
            behind = match is not None and len(self.layers) <= int(match[1]) < self.depths[0]
            return behind or (self.norm_f is None and has_all and name.startswith('norm_f.'))

        return [name for name in names if is_left_out(name)]

    def _frozen_modules(self) -> list[nn.Module]:
        if self.frozen_stages < 0:
            return []
        norms = [self.norm_f] if self.frozen_stages == self.depths[0] and self.norm_f is not None else []
        return [self.patch_embed, *self.layers[: self.frozen_stages], *norms]

    def _freeze(self) -> None:
        super()._freeze()
        if self.frozen_stages >= 0:
            self.cls_token.requires_grad_(False)
            self.pos_embed.requires_grad_(False)
