"""Training runs of milliseconds, through tools/train.py: a linear model on numbers, whose draws of chance show."""

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import get_rank
from mmengine.evaluator import BaseMetric
from mmengine.hooks import CheckpointHook, Hook
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, HOOKS, METRICS, MODELS
from torch import Tensor, nn
from torch.utils.data import Dataset

from mmevm.backbones import EfficientVMamba

CONFIG = """
custom_imports = dict(imports=['tests.test_tools.toy'], allow_failed_imports=False)
default_scope = 'mmengine'
model = dict(type='ToyModel')
data = dict(num_workers=0, sampler=dict(type='DefaultSampler', shuffle=True), dataset=dict(type='ToyDataset', size=12))
train_dataloader = dict(batch_size=2, **data)
val_dataloader = dict(batch_size=2, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False),
                      dataset=dict(type='ToyDataset', size=5))
val_evaluator = dict(type='ToyMetric')
val_cfg = dict()
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=2)
optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.1, momentum=0.9))
default_hooks = dict(checkpoint=dict(type='CheckpointHook', interval=1), logger=dict(type='LoggerHook', interval=1))
custom_hooks = [dict(type='ToyRecorder')]
env_cfg = dict(dist_cfg=dict(backend='gloo'))
randomness = dict(seed=0)
"""
EPOCH = 6


@DATASETS.register_module()
class ToyDataset(Dataset):
    """Numbers.

    Args:
        size (int): How many.
    """

    def __init__(self, size: int) -> None:
        self.size = size

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {'inputs': torch.tensor([1.0, index / self.size]), 'indices': torch.tensor(index)}


@MODELS.register_module()
class ToyModel(BaseModel):
    """A regression with dropout."""

    def __init__(self, data_preprocessor: Any = None) -> None:
        super().__init__(data_preprocessor)
        self.linear = nn.Linear(2, 1)

    def forward(self, inputs: list[Tensor], indices: list[Tensor], mode: str = 'tensor') -> Any:
        """Return the loss, or the predictions."""
        predictions = self.linear(torch.dropout(torch.stack(tuple(inputs)), 0.3, self.training))[:, 0]
        if mode != 'loss':
            return list(predictions)
        return {'loss': (predictions - torch.stack(tuple(indices)) / 10).square().mean()}


@DATASETS.register_module()
class ToyImages(ToyDataset):
    """Images of noise."""

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        image = torch.randn(3, 32, 32, generator=torch.Generator().manual_seed(index))
        return {'inputs': image, 'indices': torch.tensor(index)}


@MODELS.register_module()
class ToyClassifier(BaseModel):
    """A small backbone of mmevm whose batch norms are frozen, and a head for four classes."""

    def __init__(self, data_preprocessor: Any = None) -> None:
        super().__init__(data_preprocessor)
        self.backbone = EfficientVMamba({'dims': [8], 'depths': [1]}, out_indices=(0,), norm_eval=True)
        self.head = nn.Linear(8, 4)

    def forward(self, inputs: list[Tensor], indices: list[Tensor], mode: str = 'tensor') -> Any:
        """Return the loss, or the scores."""
        (maps,) = self.backbone(torch.stack(tuple(inputs)))
        scores = self.head(maps.mean((2, 3)))
        if mode != 'loss':
            return list(scores)
        return {'loss': nn.functional.cross_entropy(scores, torch.stack(tuple(indices)) % 4)}


@METRICS.register_module()
class ToyMetric(BaseMetric):
    """A score that rises with each evaluation, so that every checkpoint is the best so far."""

    default_prefix = 'toy'
    evaluations = 0

    def process(self, data_batch: Any, data_samples: Any) -> None:
        """Keep a number an image."""
        self.results += [0] * len(data_samples)

    def compute_metrics(self, results: list) -> dict[str, int]:
        """Return the score."""
        ToyMetric.evaluations += 1
        return {'score': ToyMetric.evaluations}


@HOOKS.register_module()
class ToyCheckpointHook(CheckpointHook):
    """A user's own."""


@HOOKS.register_module()
class ToyRecorder(Hook):
    """Writes a line an iteration to ``rank<N>.jsonl`` in the current folder, and can signal its process.

    Args:
        signals (dict | None): The name of a signal, and at which iteration or batch of an evaluation to send it:
            ``dict(name='SIGTERM', at=['train', 3])``. Without a name, only ``here`` is printed.
        rank (int | None): Of the only process to signal.
        sleep (float): How long the iteration takes in which the signal is sent, in seconds.
    """

    def __init__(self, signals: dict | None = None, rank: int | None = None, sleep: float = 0) -> None:
        self.signals, self.rank, self.sleep = signals or {}, rank, sleep

    def _signal(self, stage: str, number: int) -> None:
        if self.signals.get('at') == [stage, number] and self.rank in (None, get_rank()):
            if 'name' in self.signals:
                os.kill(os.getpid(), getattr(signal, self.signals['name']))
            print('here', flush=True)
            time.sleep(self.sleep)

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: dict | None = None) -> None:
        """Signal where asked to."""
        self._signal('train', runner.iter)

    def before_val_iter(self, runner: Any, batch_idx: int, data_batch: dict | None = None) -> None:
        """Signal where asked to."""
        self._signal('val', batch_idx)

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: dict | None = None, outputs: dict | None = None
    ) -> None:
        """Write the line."""
        line = dict(
            iter=runner.iter,
            epoch=runner.epoch,
            loss=outputs['loss'].item(),
            images=[int(index) for index in data_batch['indices']],
            lr=runner.optim_wrapper.get_lr()['lr'][0],
        )
        with open(f'rank{get_rank()}.jsonl', 'a', encoding='utf-8') as file:
            file.write(json.dumps(line) + '\n')


def read(folder: Path, rank: int = 0) -> list[dict]:
    """The lines of one process, which are taken away."""
    path = folder / f'rank{rank}.jsonl'
    lines = [json.loads(line) for line in path.read_text(encoding='utf-8').splitlines()] if path.exists() else []
    path.unlink(missing_ok=True)
    return lines
