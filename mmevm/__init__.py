"""EfficientVMamba for OpenMMLab: scan operators, backbones, configs and checkpoints.

Importing the package registers with MMEngine its backbones, and ``mmevm://NAME`` for checkpoints of the zoo; it needs
torch and mmengine, neither the compiled extension nor mmcv, mmdet, mmseg or mmpretrain.
"""

from mmevm import backbones, ops, zoo
from mmevm.version import __version__

__all__ = ['__version__', 'backbones', 'ops', 'zoo']
