"""Every ready-made config: it loads, its neck fits its backbone, its size and its optimizer are what they should be."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from torch import nn

pytestmark = pytest.mark.openmmlab

CONFIGS = Path(__file__).resolve().parents[1] / 'configs'
NAMES = sorted(path.name for path in CONFIGS.glob('*.py'))


def load(name: str) -> Config:
    cfg = Config.fromfile(CONFIGS / name)
    init_default_scope(cfg.default_scope)
    return cfg


def build(cfg: Config) -> nn.Module:
    from mmengine.registry import MODELS
    return MODELS.build(cfg.model)


@pytest.mark.parametrize('name', NAMES)
def test_config_is_a_short_delta(name: str) -> None:
    lines = (CONFIGS / name).read_text().splitlines()
    assert lines[0].startswith('# ') and len(lines) <= 60


@pytest.mark.parametrize('name', NAMES)
def test_config_neck_takes_the_channels_of_the_backbone(name: str) -> None:
    cfg = load(name)
    from mmengine.registry import MODELS
    backbone = MODELS.build(cfg.model.backbone).eval()
    with torch.no_grad():
        maps = backbone(torch.zeros(1, 3, 64, 64))
    assert [x.shape[1] for x in maps] == list(cfg.model.neck.in_channels)
    assert [64 // x.shape[2] for x in maps] == [4, 8, 16, 32]


def test_retinanet_evm_t_has_the_parameters_of_the_recipe() -> None:
    model = build(load('retinanet_evm_t.py'))
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(15.99e6, rel=0.01)
    assert model.bbox_head.num_classes == 80


def test_retinanet_evm_t_decays_neither_norms_nor_state_parameters() -> None:
    cfg = load('retinanet_evm_t.py')
    model = build(cfg)
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    decay = {id(p): group['weight_decay'] for group in wrapper.param_groups for p in group['params']}
    norms = (nn.LayerNorm, nn.modules.batchnorm._BatchNorm)
    undecayed = {id(p) for module in model.modules() if isinstance(module, norms) for p in module.parameters()}
    state = {id(p) for name, p in model.named_parameters() if name.rsplit('.', 1)[-1] in ('A_logs', 'Ds')}
    assert len(state) == 8
    undecayed |= state
    assert len(undecayed) > 50
    assert {decay[key] for key in undecayed} == {0.}
    assert {value for key, value in decay.items() if key not in undecayed} == {1e-4}


def test_demo_config_changes_data_root_scale_and_schedule_alone() -> None:
    real, demo = load('retinanet_evm_t.py'), load('demo_retinanet_evm_t_mini.py')
    assert demo.model == real.model
    assert demo.custom_imports == real.custom_imports
    for phase in ('train', 'val'):
        ours, theirs = (cfg[f'{phase}_dataloader'].dataset for cfg in (demo, real))
        assert [step.type for step in ours.pipeline] == [step.type for step in theirs.pipeline]
        changed = {key for key in ours if ours[key] != theirs[key]}
        assert changed == {'data_root', 'pipeline'}
