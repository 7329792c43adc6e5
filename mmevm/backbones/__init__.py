"""Backbones, registered with MMEngine on import."""

from mmevm.backbones.efficient_vmamba import EfficientVMamba
from mmevm.backbones.vim import Vim
from mmevm.backbones.vmamba import VMamba

__all__ = ['EfficientVMamba', 'VMamba', 'Vim']
