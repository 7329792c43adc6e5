"""What all backbones have in common: strict pretrained weights, frozen stages, fixed batch statistics."""

from collections.abc import Iterable, Mapping
from typing import Any

from mmengine.logging import print_log
from mmengine.model import BaseModule, PretrainedInit
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmevm.backbones.adaptation import adapt_stem
from mmevm.checkpoint import formats
from mmevm.checkpoint.load import load_checkpoint
from mmevm.checkpoint.weights_only import CheckpointError

_UNAVAILABLE = """The pretrained weights {} cannot be had: {}
Without a network, fetch the file elsewhere and give its path:
  --cfg-options model.backbone.init_cfg.checkpoint=/where/it/lies
or train from random weights:
  --cfg-options model.backbone.init_cfg=None"""


def is_pretrained(config: Mapping[str, Any]) -> bool:
    """Whether an entry of an ``init_cfg`` names pretrained weights, by the initialiser's name or class."""
    kind = config.get('type')
    return kind is PretrainedInit or str(kind).rpartition('.')[2] in ('Pretrained', 'PretrainedInit')


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
        pretrained = [config for config in configs if is_pretrained(config)]
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

    def adapt(self, weights: dict[str, Any]) -> dict[str, str]:
        """Fits entries of a checkpoint in mmevm's spelling that depend on more than the variant, in place.

        Here the stem's kernel, for other input channels. What is ambiguous or cannot be fitted is replaced by a
        :class:`CheckpointError` that says why; whoever loads has to raise it.

        Args:
            weights (dict[str, Any]): Entries of a backbone.

        Returns:
            dict[str, str]: What was done, by the names of the entries that were changed: 'adapted …',
            'interpolated …', 'refused', or '' for what is not worth a word.
        """
        stem = getattr(getattr(self, 'patch_embed', None), 'proj', None)
        return adapt_stem(weights, 'patch_embed.proj.weight', stem)

    def not_built(self, names: Iterable[str]) -> list[str]:
        """The entries of a checkpoint for parts that this backbone lacks, because no map it returns depends on them.

        Args:
            names (Iterable[str]): Names of a backbone's entries in mmevm's spelling.

        Returns:
            list[str]: Those that a load leaves out.
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
        self._fit_in_place(state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def _fit_in_place(self, state_dict: dict[str, Any], prefix: str) -> None:
        """Does for the entries below ``prefix`` what :func:`load_checkpoint` does, and says so.

        Raises:
            CheckpointError: If an entry cannot be fitted; no weight of this backbone has changed then.
        """
        weights = {name[len(prefix) :]: value for name, value in state_dict.items() if name.startswith(prefix)}
        changes = self.adapt(weights)
        for name in changes:
            if isinstance(weights[name], CheckpointError):
                raise weights[name]
            state_dict[prefix + name] = weights[name]
        for name in self.not_built(weights):
            del state_dict[prefix + name]
        said = [f'{prefix}{name} {how}' for name, how in changes.items() if ' ' in how]
        if said:
            print_log('; '.join(said), logger='current')
