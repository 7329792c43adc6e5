"""mmevm's registries: children of MMEngine's roots, found from any library's scope by ``type='mmevm.<Name>'``."""

from mmengine.registry import HOOKS as ROOT_HOOKS
from mmengine.registry import LOOPS as ROOT_LOOPS
from mmengine.registry import MODELS as ROOT_MODELS
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS as ROOT_CONSTRUCTORS
from mmengine.registry import Registry

MODELS = Registry('model', parent=ROOT_MODELS, scope='mmevm', locations=['mmevm.backbones'])
OPTIM_WRAPPER_CONSTRUCTORS = Registry(
    'optimizer wrapper constructor', parent=ROOT_CONSTRUCTORS, scope='mmevm', locations=['mmevm.optim']
)
HOOKS = Registry('hook', parent=ROOT_HOOKS, scope='mmevm', locations=['mmevm.cli.resume'])
LOOPS = Registry('loop', parent=ROOT_LOOPS, scope='mmevm', locations=['mmevm.cli.resume'])


def register_backbone(cls: type) -> type:
    """Registers a backbone class under ``mmevm.<Name>`` and, in MMEngine's root, under its plain name.

    A library's registry falls back to the root for names it does not know, so that after
    ``custom_imports = dict(imports=['mmevm'])`` the unscoped ``type='<Name>'`` works in mmdet, mmseg and mmpretrain
    configs.
    """
    MODELS.register_module(module=cls)
    ROOT_MODELS.register_module(module=cls)
    return cls
