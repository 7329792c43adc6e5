"""Checkpoints of ``tools/train.py`` and ``tools/test.py``: strict, in any format that mmevm reads."""

import logging
from typing import Any

from mmengine.hooks import Hook
from mmengine.logging import print_log
from torch import Tensor, nn

from mmevm.checkpoint import CheckpointError, LoadReport, fit_checkpoint
from mmevm.checkpoint.load import find_backbone

_BACKBONE_ALONE = """
Training from `load_from` takes a checkpoint of the same model, apart from its heads, or of another task's model around
the same backbone. To take no more than its backbone, if that fits, and leave everything else to be trained:
  --cfg-options load_from=None model.backbone.init_cfg.type=Pretrained model.backbone.init_cfg.checkpoint=CHECKPOINT"""


class StrictWeights(Hook):
    """Refuses checkpoints that do not fit, and renames those of upstream, before MMEngine loads them.

    MMEngine alone would leave weights random wherever names or shapes do not fit, and only log that. It compares before
    anything is written. Models without a backbone of mmevm are left to MMEngine.

    Args:
        source (str): What to call the checkpoint.
        whole (bool): Every weight of the model has to be in the checkpoint, as for an evaluation; otherwise what it
            lacks beside the backbone, and heads that differ, for other classes perhaps, are left to be trained.
        resume (bool): A training goes on from it, for which weights are not enough.
    """

    # Before MMEngine's own hooks, one of which loads the moving average from the same weights.
    priority = 'VERY_HIGH'

    def __init__(self, source: str, whole: bool, resume: bool = False) -> None:
        self.source = source
        self.whole = whole
        self.resume = resume

    def after_load_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        """Replaces the checkpoint's weights by the model's own with those that fit written over them.

        Raises:
            CheckpointError: As :meth:`fit`.
        """
        model = unwrap(runner.model)
        fitted = self.fit(model, checkpoint)
        if fitted is None:
            return
        weights, report = fitted
        report.log(self.source)
        if report.problems:
            print_log(f'{self.source}: what differs in heads stays as initialised, to be trained', logger='current',
                      level=logging.WARNING)
        checkpoint['state_dict'] = {**model.state_dict(), **weights}

    def fit(self, model: nn.Module, checkpoint: dict) -> tuple[dict[str, Tensor], LoadReport] | None:
        """Compares a checkpoint with a model.

        Returns:
            tuple[dict[str, Tensor], LoadReport] | None: What a load writes, and the report on it; None for models
            without a backbone of mmevm.

        Raises:
            CheckpointError: If anything is missing, left over or of another shape, heads apart unless ``whole``.
        """
        if self.resume and 'epoch' not in (checkpoint.get('meta') or {}):
            raise CheckpointError(f'{self.source} has weights and no state of a training that could go on. To start '
                                  f'from them: --cfg-options load_from={self.source}, without --resume')  # fmt: skip
        try:
            find_backbone(model)
        except TypeError:
            return None
        try:
            weights, report = fit_checkpoint(model, checkpoint, free_heads=not self.whole)
        except CheckpointError as error:
            raise CheckpointError(f'{self.source}: {error}{"" if self.whole else _BACKBONE_ALONE}') from error
        if self.whole:
            report.require_whole(self.source)
        return weights, report


def unwrap(model: nn.Module) -> nn.Module:
    """The model that a config describes, without what distributes it or augments its input."""
    from torch.distributed.fsdp import FullyShardedDataParallel

    # What is inside of a sharded model has flattened parts of weights; the wrapper itself gives them whole.
    while isinstance(getattr(model, 'module', None), nn.Module) and not isinstance(model, FullyShardedDataParallel):
        model = model.module
    return model
