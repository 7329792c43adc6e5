"""The extension's operators, under ``torch.ops.mmevm``."""

from mmevm.ops import extension
from mmevm.ops.autograd import CHUNK, register

__all__ = ['CHUNK', 'NAMESPACE']

NAMESPACE = 'mmevm'

if extension.LOAD_ERROR is None:
    register(NAMESPACE)
