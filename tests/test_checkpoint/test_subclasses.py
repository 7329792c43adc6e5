"""Users' own backbones around ours: what they call their parts is theirs, and survives every way of loading."""

import copy
import pickle
from collections.abc import Callable

import pytest
import torch
from mmengine.model import ExponentialMovingAverage
from mmengine.runner.checkpoint import load_state_dict as mmengine_load_state_dict
from torch import nn
from torch.optim.swa_utils import AveragedModel

from mmevm.backbones import EfficientVMamba, Vim, VMamba
from mmevm.checkpoint import formats, load_checkpoint

from .test_names import assert_has, other_values

STAGES = {'dims': [8, 16], 'depths': [1, 1]}
NAMES = ['norm', 'head', 'classifier', 'backbone', 'module', 'model', 'net', 'model_ema', 'encoder', 'ln_1', 'outnorm7']
PARTS: dict[str, Callable[[], nn.Module]] = {
    'norm': lambda: nn.LayerNorm(4),
    'linear': lambda: nn.Linear(4, 4),
    'batch norm': lambda: nn.BatchNorm1d(4),
    'classifier': lambda: nn.ModuleDict({'norm': nn.LayerNorm(16), 'head': nn.Linear(16, 4)}),
    'numbered': lambda: nn.Sequential(nn.LayerNorm(4), nn.Linear(4, 4)),
    'backbone': lambda: EfficientVMamba(STAGES, out_indices=(0, 1)),
}


def subclass(base: type[nn.Module], part: str, names: list[str] = NAMES) -> nn.Module:
    """A backbone with parts of one kind under all names that loading gives a meaning in files."""

    class Own(base):
        def __init__(self) -> None:
            if base is Vim:
                super().__init__({'dims': [8], 'depths': [2]}, img_size=32)
            else:
                super().__init__(STAGES, out_indices=(0, 1))
            for name in names:
                self.add_module(name, PARTS[part]())

    return other_values(Own())


EVERY_BASE = pytest.mark.parametrize('base', [EfficientVMamba, VMamba, Vim])


@EVERY_BASE
@pytest.mark.parametrize('part', PARTS)
@pytest.mark.parametrize('strict', [True, False])
def test_load_state_dict_gives_back_all_of_a_subclass(base: type, part: str, strict: bool) -> None:
    saved, model = subclass(base, part), subclass(base, part)
    missing, unexpected = model.load_state_dict(saved.state_dict(), strict=strict)
    assert missing == unexpected == []
    assert_has(model, saved.state_dict())
    report = load_checkpoint(other_values(model), saved.state_dict())
    assert report.fresh == report.dropped == []
    assert_has(model, saved.state_dict())


def test_load_state_dict_gives_back_a_part_of_a_subclass() -> None:
    for part in PARTS:
        saved, model = subclass(EfficientVMamba, part), subclass(EfficientVMamba, part)
        left_out = ('norm.weight', 'head.0.bias', 'patch_embed.proj.bias', 'layers.1.blocks.0.norm.weight')
        some = {name: value for name, value in saved.state_dict().items() if name not in left_out}
        missing, unexpected = model.load_state_dict(some, strict=False)
        assert unexpected == [] and missing == [name for name in model.state_dict() if name not in some]
        assert all(torch.equal(model.state_dict()[name], value) for name, value in some.items())


WRAPPERS: dict[str, Callable[[nn.Module], nn.Module]] = {
    'Sequential': lambda model: nn.Sequential(model, nn.LayerNorm(4)),
    'DataParallel': nn.DataParallel,
    'AveragedModel': AveragedModel,
    'MMEngine average': ExponentialMovingAverage,
    'compiled': torch.compile,
    'deep copy': copy.deepcopy,
    **{
        name: lambda model, name=name: nn.ModuleDict({name: model, 'norm': nn.LayerNorm(4), 'head': nn.Linear(2, 2)})
        for name in ('encoder', 'module', 'model', 'net', 'backbone')
    },
}


@pytest.mark.parametrize('wrap', WRAPPERS.values(), ids=WRAPPERS.keys())
@pytest.mark.parametrize('part', ['norm', 'classifier'])
def test_wrappers_give_back_all_that_is_in_them(wrap: Callable, part: str) -> None:
    saved, model = (other_values(wrap(subclass(EfficientVMamba, part))) for _ in range(2))
    missing, unexpected = model.load_state_dict(saved.state_dict(), strict=False)
    assert missing == unexpected == []
    assert_has(model, saved.state_dict())
    report = load_checkpoint(other_values(model), saved.state_dict())
    assert report.fresh == report.dropped == []
    assert_has(model, saved.state_dict())
    if not isinstance(model, nn.DataParallel):  # MMEngine leaves its prefix out
        mmengine_load_state_dict(other_values(model), saved.state_dict(), strict=True)
        assert_has(model, saved.state_dict())


@EVERY_BASE
def test_a_subclass_reads_upstreams_names_of_what_it_inherits(base: type) -> None:
    saved = subclass(base, 'linear', ['adapter'])
    state, model = formats.to_upstream(saved.state_dict()), subclass(base, 'linear', ['adapter'])
    model.load_state_dict(state)
    assert_has(model, saved.state_dict())


@pytest.mark.parametrize('duplicate', [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_copies_read_upstreams_names_too(duplicate: Callable) -> None:
    model = other_values(EfficientVMamba({**STAGES, 'blocks': ['evss', 'inres']}, out_indices=(0, 1)))
    twin, state = duplicate(model), formats.to_upstream(model.state_dict())
    del model
    twin.load_state_dict({f'module.{name}': value for name, value in state.items()})
    assert_has(twin, state)
