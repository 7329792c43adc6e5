"""Optimizers that MMEngine's constructor cannot express in a few lines of a config."""

from typing import Any

from mmengine.optim import DefaultOptimWrapperConstructor
from torch import nn

from mmevm.registry import OPTIM_WRAPPER_CONSTRUCTORS

_EMBEDDINGS = ('patch_embed', 'cls_token', 'pos_embed')


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class LayerDecay(DefaultOptimWrapperConstructor):
    """Learning rates that shrink from block to block below the heads, as BEiT's do (arXiv 2106.08254), for Vim.

    Heads, necks and the last norm learn at the optimizer's rate, every block at ``layer_decay`` times the rate of the
    layer above it, and the embeddings below the first block. Vectors, positions and the class token do not decay.

    Args:
        optim_wrapper_cfg (dict): MMEngine's, with an ``optimizer`` that has an ``lr``.
        paramwise_cfg (dict): ``dict(layer_decay=...)``, a factor above 0 and at most 1.

    Raises:
        ValueError: ``layer_decay`` or ``lr`` is missing, or ``layer_decay`` is out of range.
    """

    def __init__(self, optim_wrapper_cfg: dict, paramwise_cfg: dict | None = None) -> None:
        super().__init__(optim_wrapper_cfg, paramwise_cfg)
        self.layer_decay = self.paramwise_cfg.get('layer_decay')
        if set(self.paramwise_cfg) != {'layer_decay'} or not 0 < self.layer_decay <= 1:
            raise ValueError(f'`paramwise_cfg` must be dict(layer_decay=F) with 0 < F <= 1, got {paramwise_cfg}')
        if self.base_lr is None:
            raise ValueError(f'`optimizer` must have an `lr`, which is scaled per layer, got {self.optimizer_cfg}')

    def add_params(self, params: list[dict], module: nn.Module, **kwargs: Any) -> None:
        """Add a group for each layer's parameters with weight decay and one for those without; skip frozen ones.

        Raises:
            TypeError: The model's ``backbone`` is not a single stack of ``layers``.
        """
        backbone: Any = getattr(module, 'backbone', None)
        if not hasattr(backbone, 'layers') or len(backbone.depths) != 1:
            raise TypeError(f'LayerDecay is for models around Vim, got the backbone {type(backbone).__name__}')
        groups: dict[tuple[int, bool], dict[str, Any]] = {}
        for name, parameter in module.named_parameters():
            if not parameter.requires_grad:
                continue
            key = _layers_above(name, backbone.depths[0]), parameter.dim() > 1 and not name.endswith(_EMBEDDINGS)
            groups.setdefault(key, {'params': []})['params'].append(parameter)
        for (above, decays), group in groups.items():
            group['lr'] = self.base_lr * self.layer_decay**above
            params.append(group if decays else {**group, 'weight_decay': 0.0})


def _layers_above(name: str, depth: int) -> int:
    module, part, index = (*name.split('.'), '', '')[:3]
    if module != 'backbone' or part not in ('layers', *_EMBEDDINGS):
        return 0
    return depth - int(index) if part == 'layers' else depth + 1
