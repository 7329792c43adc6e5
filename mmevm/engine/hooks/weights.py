"""Checkpoints of ``tools/train.py`` and ``tools/test.py``: strict, in any format that mmevm reads."""

import logging
from typing import Any

from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.model import BaseTTAModel, is_model_wrapper
from torch import Tensor, nn

from mmevm.checkpoint import CheckpointError, LoadReport, fit_checkpoint
from mmevm.checkpoint.align import find_backbone
from mmevm.checkpoint.names import plain_entries
from mmevm.engine.hooks.class_sizes import class_sized

_BACKBONE_ALONE = """
`load_from` takes a checkpoint of the same model, which may be for other classes and have other heads, or of another
task's model around the same backbone. To take no more than its backbone, if that fits, and leave everything else to be
trained:
  --cfg-options load_from=None model.backbone.init_cfg.type=Pretrained model.backbone.init_cfg.checkpoint=CHECKPOINT"""

_MORE_PARTS = (
    "{source} is of a model with more parts, such as {part}: its optimizer's state is for them, too. Resume with the "
    'config that it was trained with, or start from its weights: --cfg-options load_from={source}, without --resume'
)


class StrictWeights(Hook):
    """Refuses checkpoints that do not fit, and renames those of upstream, before MMEngine loads them.

    MMEngine alone would leave weights random wherever names or shapes do not fit, and only log that. It compares before
    anything is written. Models without a backbone of mmevm are left to MMEngine.

    Args:
        source (str): What to call the checkpoint.
        whole (bool): Every weight of the model has to be in the checkpoint, as for an evaluation; otherwise what it
            lacks beside the backbone, heads that differ, and whatever else has another size only because the number of
            classes is another, are left to be trained.
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
        fitted = self.fit(runner, checkpoint)
        if fitted is None:
            return
        weights, report = fitted
        report.log(self.source)
        if report.problems:
            _say_what_is_trained_anew(self.source, report)
        model = unwrap(runner.model)
        checkpoint['state_dict'] = _for_runner(model, {**model.state_dict(), **weights})

    def fit(self, runner: Any, checkpoint: dict) -> tuple[dict[str, Tensor], LoadReport] | None:
        """Compares a checkpoint with the model of a runner.

        Returns:
            tuple[dict[str, Tensor], LoadReport] | None: What a load writes, and the report on it; None for models
            without a backbone of mmevm.

        Raises:
            CheckpointError: If anything is missing, left over or of another shape, but for what is left to be trained.
        """
        if self.resume and 'epoch' not in (checkpoint.get('meta') or {}):
            raise CheckpointError(
                f'{self.source} has weights and no state of a training that could go on. To start '
                f'from them: --cfg-options load_from={self.source}, without --resume'
            )
        model = unwrap(runner.model)
        try:
            find_backbone(model)
        except TypeError:
            return None

        def sizes() -> dict[str, set[int]]:
            return class_sized(runner.cfg.model, plain_entries(model.state_dict()))

        freedom = {} if self.whole else {'free_heads': True, 'class_sized': sizes}
        try:
            weights, report = fit_checkpoint(model, checkpoint, **freedom)
        except CheckpointError as error:
            raise CheckpointError(f'{self.source}: {error}{"" if self.whole else _BACKBONE_ALONE}') from error
        if self.whole:
            report.require_whole(self.source)
        if self.resume and report.dropped:
            raise CheckpointError(_MORE_PARTS.format(source=self.source, part=report.dropped[0]))
        return weights, report


def _say_what_is_trained_anew(source: str, report: LoadReport) -> None:
    names = [problem.partition(' ')[0] for problem in report.mismatched]
    others = ', '.join(name for name in names if 'head.' not in name)
    more = f', and so does what depends on the number of classes: {others}' if others else ''
    print_log(
        f'{source}: what differs in heads stays as initialised, to be trained{more}',
        logger='current',
        level=logging.WARNING,
    )


def unwrap(model: nn.Module) -> nn.Module:
    """The model that a config describes, without what distributes it or augments its input."""
    from torch.distributed.fsdp import FullyShardedDataParallel

    # What is inside of a sharded model has flattened parts of weights; the wrapper itself gives them whole.
    while (is_model_wrapper(model) or isinstance(model, BaseTTAModel)) and not isinstance(
        model, FullyShardedDataParallel
    ):
        model = model.module
    return model


def _for_runner(model: nn.Module, state_dict: dict[str, Any]) -> dict[str, Any]:
    """Names with one more ``module.``, which MMEngine's runner takes off, if the model itself has such names."""
    if 'module' in dict(model.named_children()):
        return {f'module.{name}': value for name, value in state_dict.items()}
    return state_dict
