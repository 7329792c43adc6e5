"""Building blocks of the backbones: plain modules, called directly rather than through a registry."""

from mmevm.layers.basic import BranchAttention, DropPath, RMSNorm, SqueezeExcite
from mmevm.layers.blocks import EVSSBlock, InvertedResidual, VSSBlock
from mmevm.layers.mixers import ES2D, SS2D
from mmevm.layers.patch import ConvDownsample, ConvStem, PatchEmbed, PatchMerging
from mmevm.layers.vim import BidirectionalMamba, VimBlock

__all__ = [
    'ES2D',
    'SS2D',
    'BidirectionalMamba',
    'BranchAttention',
    'ConvDownsample',
    'ConvStem',
    'DropPath',
    'EVSSBlock',
    'InvertedResidual',
    'PatchEmbed',
    'PatchMerging',
    'RMSNorm',
    'SqueezeExcite',
    'VSSBlock',
    'VimBlock',
]
