"""Checkpoints: upstream's formats, weights-only files, strict loading."""

from mmevm.checkpoint.load import LoadReport, fit_checkpoint, load_checkpoint
from mmevm.checkpoint.weights_only import CheckpointError, load_file, register_weights_only_loader

__all__ = [
    'CheckpointError',
    'LoadReport',
    'fit_checkpoint',
    'load_checkpoint',
    'load_file',
    'register_weights_only_loader',
]
