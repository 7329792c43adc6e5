"""Backbones, registered with MMEngine on import."""

from mmevm.backbones.efficient_vmamba import EfficientVMamba

__all__ = ['EfficientVMamba']
