"""What all backbones have in common: strict pretrained weights, frozen stages, fixed batch statistics."""

from collections.abc import Mapping
from typing import Any

from mmengine.model import BaseModule
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmevm.checkpoint import formats
from mmevm.checkpoint.load import load_checkpoint
from mmevm.checkpoint.weights_only import CheckpointError
from mmevm.registry import type_name

_UNAVAILABLE = """The pretrained weights {} cannot be had: {}
Without a network, fetch the file elsewhere and give its path:
  --cfg-options model.backbone.init_cfg.checkpoint=/where/it/lies
or train from random weights:
  --cfg-options model.backbone.init_cfg=None"""


class Backbone(BaseModule):
    """A backbone that loads upstream's files strictly and can be trained in part.

    A subclass sets ``dims`` and ``depths``, one entry per stage, and calls :meth:`_freeze` when it is built.

    Args:
        frozen_stages (int): -1 freezes nothing, 0 the stem, n the stem and the first n stages.
        norm_eval (bool): Keeps batch norms in evaluation mode while training.
        init_cfg (dict or list[dict], optional): MMEngine initialisation; ``type='Pretrained'`` takes upstream's files.
    """

    arch_zoo: Mapping[str, dict[str, Any]] = {}
    dims: list[int]
    depths: list[int]

    def __init__(self, frozen_stages: int, norm_eval: bool, init_cfg: dict | list[dict] | None) -> None:
        super().__init__(init_cfg)
        self.frozen_stages = frozen_stages
        self.norm_eval = norm_eval

    def init_weights(self) -> None:
        """Initialises the weights; a 'Pretrained' ``init_cfg`` is loaded strictly, from any format of upstream.

        Raises:
            CheckpointError: If the file cannot be had or opened, or does not fit.
        """
        configs = self.init_cfg if isinstance(self.init_cfg, list) else [self.init_cfg] if self.init_cfg else []
        pretrained = [c for c in configs if type_name(c) in ('Pretrained', 'PretrainedInit')]
        if self.is_init or not pretrained:
            return super().init_weights()
        others, whole = [c for c in configs if c not in pretrained], self.init_cfg
        self.init_cfg = others or None
        try:
            super().init_weights()
        finally:
            self.init_cfg = whole
        for config in pretrained:
            try:
                load_checkpoint(self, config['checkpoint'], prefix=config.get('prefix'))
            except OSError as error:
                raise CheckpointError(_UNAVAILABLE.format(config['checkpoint'], error)) from error
        return None

    def adapt(self, weights: dict[str, Any]) -> list[str]:
        """Reshapes entries of a checkpoint in mmevm's spelling that depend on more than the variant, in place.

        Args:
            weights (dict[str, Any]): Entries of a backbone.

        Returns:
            list[str]: Names of the entries that were changed.
        """
        return []

    def _frozen_modules(self) -> list[nn.Module]:
        """The modules that ``frozen_stages`` keeps out of training."""
        raise NotImplementedError

    def _freeze(self) -> None:
        for module in self._frozen_modules():
            module.eval()
            module.requires_grad_(False)

    def train(self, mode: bool = True) -> 'Backbone':
        """Sets the training mode, except in frozen stages and, with ``norm_eval``, in batch norms."""
        super().train(mode)
        self._freeze()
        if mode and self.norm_eval:
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Lets every loader that PyTorch and MMEngine have take upstream's spellings and wrappers."""
        formats.convert_in_place(state_dict, prefix, last_norm=f'outnorm{len(self.dims) - 1}')
        weights = {name[len(prefix) :]: value for name, value in state_dict.items() if name.startswith(prefix)}
        for name in self.adapt(weights):
            state_dict[prefix + name] = weights[name]
        super()._load_from_state_dict(state_dict, prefix, *args)
