"""Detectors with the operators of mmevm.mmcv_ext against mmcv's compiled ones: loss, gradients, boxes and masks."""

from typing import Any

import pytest
import torch
from mmdet.testing import demo_mm_inputs
from mmengine.config import Config
from mmengine.hub import get_config

from mmevm.engine.tasks import build_model
from tests.compiled_mmcv.test_operators import assert_equal

pytestmark = pytest.mark.openmmlab

CONFIGS = (
    'configs/retinanet_evm_t.py',
    'configs/mask_rcnn_evm_t_1x.py',
    'mmdet::rtmdet/rtmdet_tiny_8xb32-300e_coco.py',
)


def load(name: str) -> Config:
    return get_config(name) if '::' in name else Config.fromfile(name)


def step(config: Config) -> dict[str, Any]:
    """One training step and one prediction of a model with fixed weights, on fixed images."""
    torch.manual_seed(0)
    model = build_model(config)
    model.init_cfg = model.backbone.init_cfg = None
    model.init_weights()
    for name, weight in model.named_parameters():
        if '_cls' in name:  # scores of fresh weights are nearly equal, and then their order is a matter of rounding
            torch.nn.init.normal_(weight, std=0.05)
        if 'rtm_reg' in name and name.endswith('bias'):  # boxes of four strides, where fresh ones are empty
            torch.nn.init.constant_(weight, 2.0)
    for module in model.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.momentum = 1.0  # predict with the statistics of the training step
    torch.manual_seed(1)
    with_mask = config.model.type == 'MaskRCNN'
    data = demo_mm_inputs(2, [[3, 128, 160]] * 2, num_items=[4, 2], num_classes=80, with_mask=with_mask)
    data = model.data_preprocessor(data, True)
    losses, _ = model.parse_losses(model(**data, mode='loss'))
    losses.backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    model.eval()
    if hasattr(model, 'test_cfg') and 'score_thr' in (model.test_cfg or {}):
        model.test_cfg.score_thr = 0.0
    with torch.no_grad():
        samples = model(**data, mode='predict')
    found = [sample.pred_instances for sample in samples]
    assert all(len(instances) > 20 for instances in found), [len(i) for i in found]
    found = [{key: instances[key] for key in ('bboxes', 'scores', 'labels')} for instances in found]
    masks = [sample.pred_instances.masks for sample in samples if 'masks' in sample.pred_instances]
    return {'loss': losses.detach(), 'gradients': gradients, 'found': found, 'masks': masks}


@pytest.mark.parametrize('name', CONFIGS)
def test_model(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    config = load(name)
    assert_equal(monkeypatch, lambda: step(config), rtol=1e-4, atol=1e-5)
