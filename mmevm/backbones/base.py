"""The base class of all backbones: strict pretrained weights, frozen stages, fixed batch statistics."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mmengine.logging import print_log
from mmengine.model import BaseModule
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmevm.backbones.adaptation import adapt_stem
from mmevm.backbones.arguments import check_init, flag, init_configs, is_pretrained, whole_numbers
from mmevm.checkpoint import formats
from mmevm.checkpoint.align import find_start, split_backbone
from mmevm.checkpoint.load import load_checkpoint
from mmevm.checkpoint.names import below, loading_keys, plain_entries
from mmevm.checkpoint.weights_only import CheckpointError

_UNAVAILABLE = """Could not load the pretrained weights {}: {}
{}:
  --cfg-options model.backbone.init_cfg.checkpoint=/path/to/file
or train from random weights:
  --cfg-options model.backbone.init_cfg=None"""


class Backbone(BaseModule):
    """A backbone that loads upstream's files strictly and can be trained in part.

    A subclass sets ``dims`` and ``depths``, one entry per stage, and calls :meth:`_freeze` when it is built.

    Args:
        frozen_stages (int): -1 freezes nothing, 0 the stem, n the stem and the first n stages.
        norm_eval (bool): Keep batch norms in evaluation mode while training.
        init_cfg (dict or list[dict], optional): MMEngine initialisation; ``type='Pretrained'`` reads upstream's files.
    """

    arch_zoo: Mapping[str, dict[str, Any]] = {}
    dims: list[int]
    depths: list[int]

    def __init__(self, frozen_stages: int, norm_eval: bool, init_cfg: dict | list[dict] | None) -> None:
        super().__init__(init_configs(init_cfg) if isinstance(init_cfg, tuple | str) else init_cfg)
        self.frozen_stages = frozen_stages
        self.norm_eval = flag('norm_eval', norm_eval)
        # Public, as `register_load_state_dict_pre_hook`, from torch 2.5 on.
        self._register_load_state_dict_pre_hook(_read_any_format, with_module=True)

    @classmethod
    def _resolve_arch(cls, arch: str | dict[str, Any], optional: Sequence[str] = ()) -> dict[str, Any]:
        """Return the entry of ``arch_zoo``, or the dict, with ``dims`` and ``depths`` of equal length."""
        if isinstance(arch, str):
            if arch not in cls.arch_zoo:
                names = ', '.join(map(repr, cls.arch_zoo))
                raise ValueError(f'`arch` must be one of {names} or a dict, got {arch!r}')
            arch = cls.arch_zoo[arch]
        elif not isinstance(arch, Mapping):
            raise TypeError(f'`arch` must be a name or a dict, got {arch!r}')
        if set(arch) - {'dims', 'depths', *optional} or not {'dims', 'depths'} <= set(arch):
            keys = f'dims, depths and optionally {", ".join(optional)}' if optional else 'dims and depths'
            raise ValueError(f'`arch` must have the keys {keys}, got {sorted(arch)}')
        dims, depths = (whole_numbers(name, arch[name], least=1) for name in ('dims', 'depths'))
        if not dims or len(dims) != len(depths):
            raise ValueError(f'`dims` and `depths` must have one entry per stage, got {dims} and {depths}')
        return {**arch, 'dims': dims, 'depths': depths}

    def init_weights(self) -> None:
        """Initialise the weights; a 'Pretrained' ``init_cfg`` is loaded strictly, from any format of upstream.

        Raises:
            TypeError, ValueError: ``init_cfg`` has another form than MMEngine's, or names no file.
            CheckpointError: The file cannot be downloaded or opened, or does not fit.
        """
        configs = init_configs(self.init_cfg)
        for config in configs:
            check_init(config)
        pretrained = [config for config in configs if is_pretrained(config)]
        if self.is_init or not pretrained:
            return super().init_weights()
        init_cfg = self.init_cfg
        self.init_cfg = [config for config in configs if config not in pretrained] or None
        try:
            super().init_weights()
        finally:
            self.init_cfg = init_cfg
        for config in pretrained:
            try:
                load_checkpoint(self, config['checkpoint'], prefix=config.get('prefix'))
            except OSError as error:
                remedy = 'Without a network, download the file elsewhere and give its path'
                if '://' not in str(config['checkpoint']):
                    remedy = 'Give the path of the file'
                raise CheckpointError(_UNAVAILABLE.format(config['checkpoint'], error, remedy)) from error
        return None

    def adapt(self, weights: dict[str, Any]) -> dict[str, str]:
        """Adapt, in place, entries of a checkpoint under mmevm's names that depend on more than the variant.

        Here this is the stem's kernel, for other input channels. What is ambiguous or cannot be fitted is replaced by a
        :class:`CheckpointError` with the reason, which the caller has to raise.

        Args:
            weights (dict[str, Any]): Entries of a backbone.

        Returns:
            dict[str, str]: What was done, by the names of the entries that were changed: 'adapted …',
            'interpolated …', 'refused', or '' for changes that need no message.
        """
        stem = getattr(getattr(self, 'patch_embed', None), 'proj', None)
        return adapt_stem(weights, 'patch_embed.proj.weight', stem)

    def not_built(self, names: Iterable[str]) -> list[str]:
        """Return the entries of a checkpoint for parts that this backbone lacks, as it returns no map of them.

        Args:
            names (Iterable[str]): Names of a backbone's entries in mmevm's spelling.

        Returns:
            list[str]: Those that a load leaves out.
        """
        return []

    def _frozen_modules(self) -> list[nn.Module]:
        """Return the modules that ``frozen_stages`` keeps out of training."""
        raise NotImplementedError

    def _freeze(self) -> None:
        for module in self._frozen_modules():
            module.eval()
            module.requires_grad_(False)

    def train(self, mode: bool = True) -> 'Backbone':
        """Set the training mode, except in frozen stages and, with ``norm_eval``, in batch norms."""
        super().train(mode)
        self._freeze()
        if mode and self.norm_eval:
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self


def _read_any_format(backbone: Backbone, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
    """Let every loader of PyTorch and MMEngine read upstream's names and wrappers, as a loading hook.

    Entries under the module's own names stay as they are. A complete file can arrive here (``prefix`` empty, weights
    still wrapped), because MMEngine's loader knows fewer wrappers; of a model around a backbone, the backbone is taken.

    Raises:
        CheckpointError: An entry cannot be fitted; no weight of this backbone has been changed.
    """
    keys = loading_keys(backbone)
    given = below(state_dict, prefix)
    exact = given.keys() <= {key for key, _ in keys.values()}
    if exact:
        weights = plain_entries(given)
    else:
        for name in given:
            del state_dict[prefix + name]
        entries = plain_entries(given if prefix else formats.unwrap(given))
        own = {name: tensor for name, (_, tensor) in keys.items()}
        start = find_start(own, '', entries)
        if prefix:
            state_dict.update({prefix + name: value for name, value in entries.items() if not name.startswith(start)})
        weights, _ = split_backbone(below(entries, start), own, len(backbone.dims) - 1)
    changes = backbone.adapt(weights)
    for name in changes:
        if isinstance(weights[name], CheckpointError):
            raise weights[name]
    left_out = set(backbone.not_built(weights))
    for name in changes if exact else weights:
        if name not in left_out:
            key = keys[name][0] if name in keys else name
            state_dict[prefix + key] = weights[name]
    notes = [f'{prefix}{name} {how}' for name, how in changes.items() if ' ' in how]
    if notes:
        print_log('; '.join(notes), logger='current')
