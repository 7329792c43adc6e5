"""The classifiers that the benchmarks measure: ours by family and variant, timm's by its own names."""

from typing import Any

import torch
from torch import Tensor, nn

from mmevm.backbones import EfficientVMamba, Vim, VMamba
from mmevm.backbones.base import Backbone

FAMILIES = {'evm': EfficientVMamba, 'vmamba': VMamba, 'vim': Vim}
"""Our backbones, by what stands before the variant in a network's name: ``vmamba_tiny_s1l8``."""

# What is made for one image size: position tables, windows.
_SIZED = ('vim_', 'deit', 'swin')

LAYOUTS = {'contiguous': torch.contiguous_format, 'channels_last': torch.channels_last}


class Classifier(nn.Module):
    """A backbone with a linear layer on its class token, or on the mean of its last map.

    Args:
        backbone (Backbone): Returns one tensor, in a tuple.
        num_classes (int): Classes.
    """

    def __init__(self, backbone: Backbone, num_classes: int = 1000) -> None:
        super().__init__()
        self.backbone = backbone
        self.fc = nn.Linear(backbone.dims[-1], num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Args: x (Tensor[B, 3, H, W]). Returns: Tensor[B, num_classes]."""
        (y,) = self.backbone(x)
        return self.fc(y.mean(dim=(2, 3)) if y.dim() == 4 else y)


def is_ours(name: str) -> bool:
    """Return whether a name is of one of our families."""
    return name.partition('_')[0] in FAMILIES


def is_sized(name: str) -> bool:
    """Return whether a network is made for one image size."""
    return name.startswith(_SIZED)


def _backbone(name: str, resolution: int, **options: Any) -> Backbone:
    family, _, arch = name.partition('_')
    sized = {'img_size': resolution} if is_sized(name) else {}
    return FAMILIES[family](arch, **sized, **options)


def build_dense(name: str, resolution: int) -> Backbone:
    """Return one of our backbones with four maps, as detectors need them, in evaluation mode; see build."""
    maps = {'out_type': 'featmap', 'out_indices': (5, 11, 17, 23)} if name.startswith('vim_') else {}
    return _backbone(name, resolution, **maps).eval()


def build(name: str, resolution: int) -> nn.Module:
    """Return a classifier with random weights in evaluation mode.

    Args:
        name (str): Family and variant of ours, or a name of timm's.
        resolution (int): Image size, which some networks depend on.
    """
    if is_ours(name):
        maps = {} if name.startswith('vim_') else {'out_indices': (3,)}
        return Classifier(_backbone(name, resolution, **maps)).eval()
    import timm

    sized = {'img_size': resolution} if is_sized(name) else {}
    return timm.create_model(name, pretrained=False, **sized).eval()


def build_maps(name: str) -> nn.Module:
    """Return a backbone with its maps at strides 4 to 32, with random weights in training mode; see build."""
    if is_ours(name):
        return _backbone(name, 0).train()
    import timm

    reductions = timm.create_model(name, pretrained=False, features_only=True).feature_info.reduction()
    indices = [i for i, reduction in enumerate(reductions) if reduction >= 4]
    return timm.create_model(name, pretrained=False, features_only=True, out_indices=indices).train()


def resident(model: nn.Module, images: Tensor) -> int:
    """Return the bytes of weights and images, which are allocated before and after a pass."""
    return sum(t.nbytes for t in (*model.parameters(), *model.buffers(), images))


def place(model: nn.Module, layout: str, device: torch.device | str = 'cpu') -> nn.Module:
    """Move a network to a device; 'contiguous' leaves every weight in the layout that the network gave it."""
    layouts = {} if layout == 'contiguous' else {'memory_format': LAYOUTS[layout]}
    return model.to(device, **layouts)
