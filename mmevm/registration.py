"""Makes MMEngine know mmevm; imported with the package, as soon as torch or MMEngine is.

It registers mmevm's backbones with MMEngine, and ``mmevm://NAME`` for checkpoints of the zoo, lets
``_base_ = 'mmseg::…'`` find the library under any name of its distribution, and stands in for mmcv's compiled operators
where mmcv has none. It needs torch and mmengine, neither the compiled extension nor mmcv, mmdet, mmseg or mmpretrain.
"""

from mmevm import backbones, mmcv_ext, ops, zoo
from mmevm._patches import find_configs_by_import_name

__all__ = ['backbones', 'ops', 'zoo']

find_configs_by_import_name()
mmcv_ext.register()
