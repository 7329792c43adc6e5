"""Pretrained weights of a config that a checkpoint overwrites: they are neither fetched nor demanded."""

from collections.abc import Iterator, Mapping
from typing import Any

from mmengine.logging import print_log
from mmengine.runner import CheckpointLoader
from torch import Tensor, nn

from mmevm.backbones.base import is_pretrained
from mmevm.checkpoint import formats
from mmevm.engine.hooks.weights import StrictWeights, unwrap


def skip_overwritten(runner: Any, strict: StrictWeights, source: str) -> None:
    """Takes from the ``init_cfg`` of each module the pretrained weights that a checkpoint overwrites, all of them.

    MMEngine initialises a model before it loads the checkpoint that training starts or continues from. A module that
    the checkpoint lacks in part keeps its ``init_cfg``; output norms apart, which files of other tasks never have.

    Args:
        runner (Runner): Before ``runner.train()``; the model of a ``FlexibleRunner`` is built.
        strict (StrictWeights): Its hook for this checkpoint.
        source (str): Path or address of the checkpoint.

    Raises:
        CheckpointError: If the checkpoint does not fit the model.
    """
    if isinstance(runner.model, dict):
        runner.model = runner.strategy.build_model(runner.model)
    model = unwrap(runner.model)
    pretrained = list(_pretrained_modules(model))
    if not pretrained:
        return
    overwritten = _overwritten(runner, model, strict, CheckpointLoader.load_checkpoint(source, 'cpu'))
    for place, module, configs in pretrained:
        own = [name for name, _ in (*module.named_parameters(), *module.named_buffers())]
        if not all(place + name in overwritten for name in own):
            continue
        names = ', '.join(str(config.get('checkpoint')) for config in configs if is_pretrained(config))
        print_log(
            f'{place.rstrip(".") or "model"}.init_cfg: {names} is left out, {source} overwrites it', logger='current'
        )
        module.init_cfg = [config for config in configs if not is_pretrained(config)] or None


def _pretrained_modules(model: nn.Module) -> Iterator[tuple[str, nn.Module, list[dict]]]:
    """Prefix, module and all entries of its ``init_cfg``, for each that has pretrained weights."""
    for name, module in model.named_modules():
        found = getattr(module, 'init_cfg', None) or []
        configs = [found] if isinstance(found, Mapping) else list(found)
        if any(map(is_pretrained, configs)):
            yield f'{name}.' if name else '', module, configs


def _overwritten(runner: Any, model: nn.Module, strict: StrictWeights, checkpoint: dict[str, Any]) -> set[str]:
    """Names of the model's weights that a load writes, or leaves at what every initialisation gives."""
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
