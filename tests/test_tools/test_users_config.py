"""A user's own config, outside the repository: our backbone, MMDetection's neck and head, upstream's weights."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

from ..parity import Fixture

pytestmark = pytest.mark.openmmlab

CONFIG = """
default_scope = 'mmdet'
custom_imports = dict(imports=['mmevm'], allow_failed_imports=False)
model = dict(
    type='RetinaNet',
    backbone=dict(
        type='EfficientVMamba', arch='tiny', init_cfg=dict(type='Pretrained', checkpoint='upstream.ckpt')),
    neck=dict(type='FPN', in_channels=[48, 96, 192, 384], out_channels=32, start_level=1, num_outs=4),
    bbox_head=dict(
        type='RetinaHead', num_classes=3, in_channels=32, feat_channels=32, stacked_convs=1,
        anchor_generator=dict(type='AnchorGenerator', octave_base_scale=4, scales_per_octave=3,
                              ratios=[0.5, 1.0, 2.0], strides=[8, 16, 32, 64])))
"""


def test_users_config_gives_upstreams_maps_from_upstreams_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fixture = Fixture('evm_tiny_64x64')
    weights = {f'module.module.{name}': value for name, value in fixture.state().items()}
    torch.save({'state_dict': weights}, tmp_path / 'upstream.ckpt')
    (tmp_path / 'mine.py').write_text(CONFIG)
    monkeypatch.chdir(tmp_path)
    cfg = Config.fromfile('mine.py')
    init_default_scope(cfg.default_scope)
    model = MODELS.build(cfg.model)
    model.init_weights()
    with torch.no_grad():
        maps = model.eval().backbone(fixture.images())
        pyramid = model.neck(maps)
    for index, got in enumerate(maps):
        assert (got - fixture.tensor(f'stage{index}')).abs().max() < 2e-4
    assert [tuple(level.shape[1:]) for level in pyramid] == [(32, 8, 8), (32, 4, 4), (32, 2, 2), (32, 1, 1)]
