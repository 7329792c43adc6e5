"""A config with `read_base`, whose types are classes and which has no scope, through `tools/train.py` and `test.py`."""

import pickle
from pathlib import Path

import pytest
import torch

from mmevm.apis.evaluate import main as run_test
from mmevm.apis.train import main as run_train
from mmevm.checkpoint import load_file

from .small_classifier import VAL_IMAGES, write_pictures

pytestmark = pytest.mark.openmmlab

BASE = """
from mmengine.dataset import DefaultSampler
from mmengine.hooks import CheckpointHook, LoggerHook
from mmengine.optim import AmpOptimWrapper
from mmengine.runner import EpochBasedTrainLoop, TestLoop, ValLoop
from mmengine.visualization import LocalVisBackend
from mmpretrain.datasets import CenterCrop, ImageNet, LoadImageFromFile, PackInputs, ResizeEdge
from mmpretrain.evaluation import Accuracy
from mmpretrain.models import CrossEntropyLoss, GlobalAveragePooling, ImageClassifier, LinearClsHead
from mmpretrain.visualization import UniversalVisualizer
from torch.optim import SGD

from mmevm.backbones import EfficientVMamba

default_scope = None
model = dict(
    type=ImageClassifier,
    backbone=dict(type=EfficientVMamba, arch='tiny', out_indices=(3,)),
    neck=dict(type=GlobalAveragePooling),
    head=dict(type=LinearClsHead, num_classes=1000, in_channels=384, loss=dict(type=CrossEntropyLoss)))
pipeline = [dict(type=LoadImageFromFile), dict(type=ResizeEdge, scale=32), dict(type=CenterCrop, crop_size=32),
            dict(type=PackInputs)]
loader = dict(batch_size=6, num_workers=0, persistent_workers=True, prefetch_factor=2)
train_dataloader = dict(
    **loader, sampler=dict(type=DefaultSampler, shuffle=True),
    dataset=dict(type=ImageNet, data_root='imagenet', split='train', pipeline=pipeline))
val_dataloader = dict(
    **loader, sampler=dict(type=DefaultSampler, shuffle=False),
    dataset=dict(type=ImageNet, data_root='imagenet', split='val', pipeline=pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(type=Accuracy, topk=(1, 5))
test_evaluator = val_evaluator
train_cfg = dict(type=EpochBasedTrainLoop, max_epochs=1)
val_cfg = dict(type=ValLoop)
test_cfg = dict(type=TestLoop)
optim_wrapper = dict(type=AmpOptimWrapper, loss_scale='dynamic', optimizer=dict(type=SGD, lr=1e-3))
default_hooks = dict(logger=dict(type=LoggerHook), checkpoint=dict(type=CheckpointHook, interval=1))
visualizer = dict(type=UniversalVisualizer, vis_backends=[dict(type=LocalVisBackend)])
"""
MINE = """
from mmengine.config import read_base

with read_base():
    from .base import *

model.update(dict(data_preprocessor=dict(mean=[127.5] * 3, std=[127.5] * 3, to_rgb=True)))
"""


def test_train_and_test_take_a_config_of_classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'base.py').write_text(BASE)
    (tmp_path / 'mine.py').write_text(MINE)
    write_pictures(tmp_path)
    assert run_train(['mine.py', '--work-dir', 'work']) == 0
    checkpoint = load_file(tmp_path / 'work/epoch_1.pth')
    assert checkpoint['meta']['iter'] == 2
    used = next(tmp_path.glob('work/*/vis_data/config.py')).read_text()
    assert 'ResumableEpochLoop' in used
    if not torch.cuda.is_available():
        assert 'AmpOptimWrapper' not in used
    arguments = ['work/epoch_1.pth', '--tta', '--out', 'out.pkl', '--work-dir', 'test']
    assert run_test(['mine.py', *arguments]) == 0
    assert len(pickle.loads((tmp_path / 'out.pkl').read_bytes())) == VAL_IMAGES
