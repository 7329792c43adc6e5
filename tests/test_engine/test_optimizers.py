"""`mmevm.engine.optimizers`: which parameter learns how fast; tests/test_configs_vim.py compares whole recipes."""

import pytest
from mmengine.optim import OptimWrapper, build_optim_wrapper
from torch import nn

from mmevm.backbones import EfficientVMamba, Vim

pytestmark = pytest.mark.openmmlab

ADAMW = dict(type='AdamW', lr=1.0, weight_decay=0.5)


class Model(nn.Module):
    """A backbone and a head."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = nn.Linear(32, 2)


def build(model: nn.Module, optimizer: dict = ADAMW, **paramwise: float) -> OptimWrapper:
    cfg = dict(optimizer=optimizer, constructor='mmevm.LayerDecay', paramwise_cfg=paramwise)
    return build_optim_wrapper(model, cfg)


def settings(model: nn.Module) -> dict[str, tuple[float, float]]:
    groups = build(model, layer_decay=0.5).param_groups
    got = {id(p): (group['lr'], group['weight_decay']) for group in groups for p in group['params']}
    return {name: got[id(p)] for name, p in model.named_parameters() if id(p) in got}


def test_layer_decay_halves_the_rate_with_every_layer_below_the_heads() -> None:
    got = settings(Model(Vim({'dims': [32], 'depths': [2]})))
    expected = {
        'head.weight': (1.0, 0.5),
        'head.bias': (1.0, 0.0),
        'backbone.norm_f.weight': (1.0, 0.0),
        'backbone.layers.1.mixer.in_proj.weight': (0.5, 0.5),
        'backbone.layers.1.mixer.A_log': (0.5, 0.5),
        'backbone.layers.0.mixer.conv1d.weight': (0.25, 0.5),
        'backbone.layers.0.mixer.D_b': (0.25, 0.0),
        'backbone.patch_embed.proj.weight': (0.125, 0.5),
        'backbone.patch_embed.proj.bias': (0.125, 0.0),
        'backbone.cls_token': (0.125, 0.0),
        'backbone.pos_embed': (0.125, 0.0),
    }
    assert {name: got[name] for name in expected} == expected
    assert len(got) == 2 + 1 + 2 * 17 + 4


def test_layer_decay_leaves_frozen_parameters_out() -> None:
    got = settings(Model(Vim({'dims': [32], 'depths': [2]}, frozen_stages=1)))
    assert len(got) == 2 + 1 + 17 and not any(name.startswith('backbone.layers.0.') for name in got)


def test_layer_decay_is_for_columns_of_blocks() -> None:
    with pytest.raises(TypeError, match='for models around Vim, got the backbone EfficientVMamba'):
        build(Model(EfficientVMamba('tiny')), layer_decay=0.9)


@pytest.mark.parametrize(
    'optimizer, paramwise, message',
    [
        (ADAMW, {}, r'must be dict\(layer_decay=F\) with 0 < F <= 1'),
        (ADAMW, {'layer_decay': 1.5}, 'got .*1.5'),
        (ADAMW, {'layer_decay': 0.9, 'norm_decay_mult': 0.0}, 'norm_decay_mult'),
        ({'type': 'AdamW'}, {'layer_decay': 0.9}, '`optimizer` must have an `lr`'),
    ],
    ids=['missing', 'range', 'others', 'lr'],
)
def test_layer_decay_refuses(optimizer: dict, paramwise: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(Model(Vim({'dims': [32], 'depths': [2]})), optimizer, **paramwise)
