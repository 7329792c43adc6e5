"""Checkpoints of ``tools/train.py`` and ``tools/test.py``: strict, in any format that mmevm reads.

What may differ where training starts from a checkpoint, and which pretrained weights it makes superfluous.
"""

import copy
import logging
import re
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.registry import MODELS
from mmengine.runner import CheckpointLoader
from torch import Tensor, nn
from torch.distributed.fsdp import FullyShardedDataParallel

from mmevm.backbones.base import is_pretrained
from mmevm.checkpoint import CheckpointError, LoadReport, fit_checkpoint, formats
from mmevm.checkpoint.align import find_backbone
from mmevm.checkpoint.names import plain_entries

_COUNT = re.compile(r'num_(\w+_)?classes')
_MORE = 100
_BACKBONE_ONLY = """
`load_from` takes a checkpoint of the same model, which may be for other classes and have other heads, or of another
task's model around the same backbone. To load no more than its backbone, if that fits, and train everything else:
  --cfg-options load_from=None model.backbone.init_cfg.type=Pretrained model.backbone.init_cfg.checkpoint=CHECKPOINT"""

_MORE_PARTS = (
    '{source} is of a model with more parts, such as {part}, and its optimizer state covers them, too. Resume with the '
    'config that it was trained with, or start from its weights: --cfg-options load_from={source}, without --resume'
)


class StrictWeights(Hook):
    """Refuses checkpoints that do not fit, and renames those of upstream, before MMEngine loads them.

    MMEngine itself would leave weights random wherever names or shapes do not fit, and only log that. Models without a
    backbone of mmevm are left to MMEngine.

    Args:
        source (str): Name of the checkpoint in messages.
        complete (bool): Every weight of the model must be in the checkpoint, as for an evaluation; otherwise missing
            parts other than the backbone, heads that differ, and weights whose size differs only by the number of
            classes, are left to be trained.
        resume (bool): A training run continues from it, for which weights are not enough.
    """

    # Before MMEngine's own hooks, one of which loads the moving average from the same weights.
    priority = 'VERY_HIGH'

    def __init__(self, source: str, complete: bool, resume: bool = False) -> None:
        self.source = source
        self.complete = complete
        self.resume = resume

    def after_load_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        """Replace the checkpoint's weights by the model's own, overwritten with those that fit.

        Raises:
            CheckpointError: As :meth:`fit`.
        """
        fitted = self.fit(runner, checkpoint)
        if fitted is None:
            return
        weights, report = fitted
        report.log(self.source)
        if report.problems:
            _warn_of_new_parts(self.source, report)
        model = unwrap(runner.model)
        checkpoint['state_dict'] = _for_runner(model, {**model.state_dict(), **weights})

    def fit(self, runner: Any, checkpoint: dict) -> tuple[dict[str, Tensor], LoadReport] | None:
        """Compare a checkpoint with the model of a runner.

        Returns:
            tuple[dict[str, Tensor], LoadReport] | None: What a load writes, and the report on it; None for models
            without a backbone of mmevm.

        Raises:
            CheckpointError: Anything is missing, left over or of another shape, except what is left to be trained.
        """
        if self.resume and 'epoch' not in (checkpoint.get('meta') or {}):
            raise CheckpointError(
                f'{self.source} contains weights only; --resume needs a full training checkpoint. To start '
                f'from them: --cfg-options load_from={self.source}, without --resume'
            )
        model = unwrap(runner.model)
        try:
            find_backbone(model)
        except TypeError:
            return None

        def sizes() -> dict[str, set[int]]:
            return {} if self.complete else class_sized(runner.cfg.model, plain_entries(model.state_dict()))

        try:
            weights, report = fit_checkpoint(model, checkpoint, free_heads=not self.complete, class_sized=sizes)
        except CheckpointError as error:
            raise CheckpointError(f'{self.source}: {error}{"" if self.complete else _BACKBONE_ONLY}') from error
        if self.complete:
            report.require_whole(self.source)
        if self.resume and report.dropped:
            raise CheckpointError(_MORE_PARTS.format(source=self.source, part=report.dropped[0]))
        return weights, report


def _warn_of_new_parts(source: str, report: LoadReport) -> None:
    names = [problem.partition(' ')[0] for problem in report.mismatched]
    others = ', '.join(name for name in names if 'head.' not in name)
    more = f', and so does what depends on the number of classes: {others}' if others else ''
    print_log(
        f'{source}: what differs in heads stays as initialised, to be trained{more}',
        logger='current',
        level=logging.WARNING,
    )


def unwrap(model: nn.Module) -> nn.Module:
    """Return the model that a config describes, without wrappers that distribute it or augment its input."""
    # Inside an FSDP model are flattened shards of the weights; the wrapper itself gives them in full.
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        if isinstance(model, FullyShardedDataParallel):
            break
        model = model.get_submodule('module')
    return model


def _for_runner(model: nn.Module, state_dict: dict[str, Any]) -> dict[str, Any]:
    """Add a ``module.``, which MMEngine's runner removes, if the model itself has such names."""
    if 'module' in dict(model.named_children()):
        return {f'module.{name}': value for name, value in state_dict.items()}
    return state_dict


def class_sized(model_cfg: Mapping[str, Any], state_dict: Mapping[str, Tensor]) -> dict[str, set[int]]:
    """Find the dimensions that are larger when a config's model is built for more classes.

    Args:
        model_cfg (Mapping): A config's ``model``.
        state_dict (Mapping[str, Tensor]): The entries of that model by name, without wrappers.

    Returns:
        dict[str, set[int]]: Dimensions by name; empty if such a model cannot be built.
    """
    try:
        with torch.device('meta'):
            other = MODELS.build(_with_more_classes(model_cfg)).state_dict()
    except Exception as error:  # whatever the model's own checks raise for such numbers
        print_log(
            f'Could not determine which weights depend on the number of classes: {type(error).__name__}: {error}',
            logger='current',
            level=logging.WARNING,
        )
        return {}
    return {
        name: {i for i, (a, b) in enumerate(zip(value.shape, other[name].shape, strict=True)) if a != b}
        for name, value in state_dict.items()
        if name in other and value.dim() == other[name].dim()
    }


def _with_more_classes(cfg: Any) -> Any:
    cfg = copy.deepcopy(cfg)
    parts = [cfg]
    while parts:
        part = parts.pop()
        if isinstance(part, list | tuple):
            parts += part
        elif isinstance(part, dict):
            counts = {key: n for key, n in part.items() if _COUNT.fullmatch(str(key)) and type(n) is int}
            # mmseg's heads may state their channels, too, which must be as many.
            counts |= {key: n for key, n in part.items() if key == 'out_channels' and n in counts.values()}
            part.update({key: n + _MORE for key, n in counts.items()})
            parts += part.values()
    return cfg


def skip_overwritten(runner: Any, strict: StrictWeights, source: str) -> None:
    """Remove from each module's ``init_cfg`` the pretrained weights that a checkpoint overwrites completely.

    MMEngine initialises a model before it loads a checkpoint, and would download the weights or fail without them. A
    module that the checkpoint lacks in part keeps its ``init_cfg``, except for output norms, which files of other tasks
    never have.

    Args:
        runner (Runner): Before ``runner.train()``; the model of a ``FlexibleRunner`` is built.
        strict (StrictWeights): Its hook for this checkpoint.
        source (str): Path or address of the checkpoint.

    Raises:
        CheckpointError: The checkpoint does not fit the model.
    """
    if isinstance(runner.model, dict):
        runner.model = runner.strategy.build_model(runner.model)
    model = unwrap(runner.model)
    pretrained = list(_pretrained_modules(model))
    if not pretrained:
        return
    overwritten = _overwritten(runner, model, strict, CheckpointLoader.load_checkpoint(source, 'cpu'))
    for prefix, module, configs in pretrained:
        own = [name for name, _ in (*module.named_parameters(), *module.named_buffers())]
        if not all(prefix + name in overwritten for name in own):
            continue
        names = ', '.join(str(config.get('checkpoint')) for config in configs if is_pretrained(config))
        print_log(
            f'{prefix.rstrip(".") or "model"}.init_cfg: {names} is left out, {source} overwrites it', logger='current'
        )
        module.init_cfg = [config for config in configs if not is_pretrained(config)] or None


def _pretrained_modules(model: nn.Module) -> Iterator[tuple[str, Any, list[Any]]]:
    """Yield prefix, module and ``init_cfg`` entries of each module with pretrained weights."""
    for name, module in model.named_modules():
        found = getattr(module, 'init_cfg', None) or []
        configs = [found] if isinstance(found, Mapping) else list(found)
        if any(map(is_pretrained, configs)):
            yield f'{name}.' if name else '', module, configs


def _overwritten(runner: Any, model: nn.Module, strict: StrictWeights, checkpoint: dict[str, Any]) -> set[str]:
    """Return the names of the weights that a load writes, and of new output norms."""
    fitted = strict.fit(runner, checkpoint)
    if fitted is not None:
        weights, report = fitted
        return {*weights, *(name for name in report.fresh if name.startswith('backbone.outnorm'))}
    own = model.state_dict()
    found = formats.strip_prefix(formats.unwrap(checkpoint))
    return {
        name
        for name, value in found.items()
        if name in own and isinstance(value, Tensor) and value.shape == own[name].shape
    }
