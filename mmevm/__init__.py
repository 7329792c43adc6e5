"""EfficientVMamba for OpenMMLab: scan operators, backbones, configs and checkpoints.

Importing the package registers with MMEngine its backbones, and ``mmevm://NAME`` for checkpoints of the zoo, lets
``_base_ = 'mmseg::…'`` find the library under any name of its distribution, and stands in for mmcv's compiled operators
where mmcv has none. It needs torch and mmengine, neither the compiled extension nor mmcv, mmdet, mmseg or mmpretrain.
"""

from mmevm import backbones, mmcv_ext, ops, zoo
from mmevm._patches import find_configs_by_import_name
from mmevm.version import __version__

__all__ = ['__version__', 'backbones', 'ops', 'zoo']

find_configs_by_import_name()
mmcv_ext.register()
