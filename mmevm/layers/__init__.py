"""Building blocks of the backbones: plain modules, called directly rather than through a registry."""

from mmevm.layers.bidirectional_mamba import BidirectionalMamba, VimBlock
from mmevm.layers.conv_downsample import ConvDownsample, ConvStem
from mmevm.layers.drop_path import DropPath
from mmevm.layers.es2d import ES2D
from mmevm.layers.evss import EVSSBlock
from mmevm.layers.inverted_residual import InvertedResidual
from mmevm.layers.patch import PatchEmbed, PatchMerging
from mmevm.layers.rms_norm import RMSNorm
from mmevm.layers.squeeze_excite import BranchAttention, SqueezeExcite
from mmevm.layers.ss2d import SS2D
from mmevm.layers.vss import VSSBlock

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
