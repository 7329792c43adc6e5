"""Backbones, registered with MMEngine on import."""

from mmevm.backbones.efficient_vmamba import EfficientVMamba
from mmevm.backbones.vim import Vim

__all__ = ['EfficientVMamba', 'Vim']
