"""Names as compilers, parallel wrappers and training frameworks write them, in files and in models."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.runner import load_checkpoint as mmengine_load
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from mmevm.backbones import EfficientVMamba, Vim, VMamba
from mmevm.checkpoint import CheckpointError, formats, load_checkpoint
from mmevm.checkpoint.identify import identify

State = dict[str, Tensor]
STAGES = {'dims': [8, 16], 'depths': [1, 1]}
BACKBONES: dict[str, Callable[[], nn.Module]] = {
    'EfficientVMamba': lambda: EfficientVMamba({**STAGES, 'blocks': ['evss', 'inres']}, out_indices=(0, 1)),
    'VMamba': lambda: VMamba({**STAGES, 'design': 'v2'}, out_indices=(0, 1)),
    'Vim': lambda: Vim({'dims': [8], 'depths': [2]}, img_size=32),
}
EVERY = pytest.mark.parametrize('build', BACKBONES.values(), ids=BACKBONES.keys())
PREFIXES = [
    '_orig_mod.',
    'module._orig_mod.',
    '_orig_mod.module.',
    'module.module.',
    'model.',
    'net.',
    'network.',
    'encoder.',
    'model._orig_mod.',
    '_orig_mod.model.',
    'module.model.',
    '_forward_module.model.',
    'student.network.',
]


class Model(nn.Module):
    """A model around a backbone, as mmdet's are."""

    def __init__(self, build: Callable[[], nn.Module], backbone: str = 'backbone') -> None:
        super().__init__()
        self.add_module(backbone, build())
        self.neck = nn.Linear(3, 3)
        self.bbox_head = nn.Linear(3, 2)


def other_values(model: nn.Module) -> nn.Module:
    """Makes every value of a model a random one, but for counters and the like."""
    for value in model.state_dict().values():
        if value.is_floating_point():
            torch.nn.init.normal_(value)
    return model


def prefixed(state: State, prefix: str) -> State:
    return {prefix + name: value for name, value in state.items()}


def assert_has(model: nn.Module, state: State) -> None:
    """The model has the values of a state dict, whatever either calls them; upstream's have no patch grid."""
    own, given = (
        [value for name, value in names.items() if not name.endswith('pos_grid')]
        for names in (model.state_dict(), state)
    )
    assert len(own) == len(given)
    assert all(torch.equal(a, b) for a, b in zip(own, given, strict=True))


@EVERY
@pytest.mark.parametrize('prefix', PREFIXES)
def test_a_backbone_reads_names_with_any_prefix(build: Callable, prefix: str) -> None:
    state = other_values(build()).state_dict()
    for source in (prefixed(state, prefix), prefixed(formats.to_upstream(state), prefix)):
        model = build()
        report = load_checkpoint(model, {'state_dict': source})
        assert_has(model, state)
        assert report.dropped == report.fresh == []
        by_torch = build()
        by_torch.load_state_dict(source)
        assert_has(by_torch, state)


@pytest.mark.parametrize('prefix', PREFIXES)
def test_a_model_reads_names_with_any_prefix(prefix: str) -> None:
    build = BACKBONES['Vim']
    state, model = other_values(Model(build)).state_dict(), Model(build)
    report = load_checkpoint(model, prefixed(state, prefix))
    assert_has(model, state)
    assert report.dropped == report.fresh == [] and set(report.loaded) == set(state)


@EVERY
def test_mmengines_loader_reads_a_compiled_backbones_file(build: Callable, tmp_path: Path) -> None:
    saved, model = other_values(torch.compile(build())), build()
    torch.save(saved.state_dict(), tmp_path / 'compiled.pth')
    mmengine_load(model, str(tmp_path / 'compiled.pth'), strict=True)
    assert_has(model, saved.state_dict())


INNER: dict[str, Callable[[str], str]] = {
    'compiled backbone': lambda name: name.replace('backbone.', 'backbone._orig_mod.'),
    'compiled blocks': lambda name: name.replace('layers.0.', 'layers.0._orig_mod.'),
    'compiled head in a compiled model': lambda name: f'_orig_mod.{name}'.replace('head.', 'head._orig_mod.'),
    'parts in parallel wrappers': lambda name: name.replace('.', '.module.', 1),
    'all of it': lambda name: f'module.model._orig_mod.{name}'.replace('backbone.', 'backbone.module._orig_mod.'),
}


@pytest.mark.parametrize('rename', INNER.values(), ids=INNER.keys())
def test_a_model_reads_names_of_wrapped_parts(rename: Callable[[str], str]) -> None:
    build = BACKBONES['EfficientVMamba']
    state, model = other_values(Model(build)).state_dict(), Model(build)
    report = load_checkpoint(model, {rename(name): value for name, value in state.items()})
    assert_has(model, state)
    assert report.dropped == report.fresh == []


def compile_backbone(model: nn.Module) -> nn.Module:
    model.backbone = torch.compile(model.backbone)
    return model


def compile_block(model: nn.Module) -> nn.Module:
    model.backbone.layers[0] = torch.compile(model.backbone.layers[0])
    return model


def compile_in_place(model: nn.Module) -> nn.Module:
    model.backbone.compile()
    return model


COMPILED: dict[str, Callable[[nn.Module], nn.Module]] = {
    'model': torch.compile,
    'backbone': compile_backbone,
    'block': compile_block,
    'in place': compile_in_place,
    'compiled in parallel': lambda model: nn.DataParallel(torch.compile(model)),
}


@pytest.mark.parametrize('wrap', COMPILED.values(), ids=COMPILED.keys())
@pytest.mark.parametrize('prefix', ['', '_orig_mod.', 'module.', 'net.'])
def test_compiled_models_take_any_file(wrap: Callable, prefix: str) -> None:
    build = BACKBONES['VMamba']
    state, model = other_values(Model(build)).state_dict(), wrap(Model(build))
    report = load_checkpoint(model, prefixed(state, prefix))
    assert_has(model, state)
    assert set(report.loaded) == set(model.state_dict()) and report.dropped == report.fresh == []


@EVERY
def test_compiled_backbones_are_initialised_from_a_compiled_backbones_file(build: Callable, tmp_path: Path) -> None:
    saved = other_values(torch.compile(build()))
    torch.save(saved.state_dict(), tmp_path / 'x.pth')
    model = torch.compile(build())
    model.init_cfg = {'type': 'Pretrained', 'checkpoint': str(tmp_path / 'x.pth')}
    model._orig_mod.init_cfg = model.init_cfg
    model.init_weights()
    assert_has(model, saved.state_dict())


def test_a_compiled_block_reads_plain_and_upstreams_names_by_load_state_dict() -> None:
    build = BACKBONES['EfficientVMamba']
    state = other_values(build()).state_dict()
    for source in (state, formats.to_upstream(state)):
        model = build()
        model.layers[1] = torch.compile(model.layers[1])
        model.load_state_dict(source)
        assert_has(model, state)


@pytest.mark.parametrize('backbone', ['encoder', 'module', 'model', 'net'])
def test_a_backbone_of_any_name_is_found(backbone: str) -> None:
    build = BACKBONES['Vim']
    saved, model = other_values(Model(build, backbone)), Model(build, backbone)
    for source in (saved.state_dict(), prefixed(saved.state_dict(), 'module._orig_mod.')):
        other_values(model)
        assert load_checkpoint(model, source).dropped == []
        assert_has(model, saved.state_dict())
    report = load_checkpoint(model, other_values(build()).state_dict())
    assert {name.partition('.')[0] for name in report.fresh} == {'neck', 'bbox_head'}
    report = load_checkpoint(model, other_values(Model(build)).state_dict())  # called `backbone` there
    assert report.fresh == report.dropped == []


def test_an_average_is_read_without_its_counter() -> None:
    build = BACKBONES['EfficientVMamba']
    for make in (build, lambda: Model(build)):
        saved, model = make(), make()
        average = other_values(AveragedModel(saved)).state_dict()
        report = load_checkpoint(model, average)
        assert report.dropped == ['n_averaged'] and report.fresh == []
        assert_has(model, {name: value for name, value in average.items() if name != 'n_averaged'})
        twin = AveragedModel(make())
        assert load_checkpoint(twin, average).dropped == []
        assert_has(twin, average)


def both(state: State, first: str, second: str) -> State:
    """The weights below one prefix, and others below another."""
    return prefixed({name: value + 1 for name, value in state.items()}, second) | prefixed(state, first)


@pytest.mark.parametrize(
    'prefixes',
    [
        ('', 'ema.'),
        ('', 'teacher.'),
        ('model.', 'ema_model.'),
        ('model.', 'model_ema.module.'),
        ('architecture.', 'averaged.'),
    ],
    ids=str,
)
def test_the_model_is_told_from_its_moving_average(prefixes: tuple[str, str]) -> None:
    build = BACKBONES['EfficientVMamba']
    state, model = other_values(Model(build)).state_dict(), Model(build)
    report = load_checkpoint(
        model, both(state, *prefixes) | {'criterion.weight': torch.ones(1)} if prefixes[0] else both(state, *prefixes)
    )
    assert_has(model, state)
    assert report.fresh == [] and set(report.dropped) >= set(prefixed(state, prefixes[1]))


def test_equal_backbones_are_refused_unless_one_is_named() -> None:
    build = BACKBONES['EfficientVMamba']
    state, model = other_values(build()).state_dict(), other_values(build())
    before = {name: value.clone() for name, value in model.state_dict().items()}
    source = both(state, 'student.', 'teacher.')
    with pytest.raises(CheckpointError, match=r'several backbones that fit, below student\., teacher\.; choose one'):
        load_checkpoint(model, source)
    assert_has(model, before)
    load_checkpoint(model, source, prefix='student')
    assert_has(model, state)


@pytest.mark.parametrize('prefix', ['backbone', 'backbone.', 'model.backbone'])
def test_the_prefix_of_init_cfg_is_found_below_a_frameworks(prefix: str, tmp_path: Path) -> None:
    build = BACKBONES['EfficientVMamba']
    state, model = other_values(Model(build)).state_dict(), build()
    torch.save(prefixed(state, '_orig_mod.model.'), tmp_path / 'x.pth')
    model.init_cfg = {'type': 'Pretrained', 'checkpoint': str(tmp_path / 'x.pth'), 'prefix': prefix}
    model.init_weights()
    assert_has(model, {name: value for name, value in state.items() if name.startswith('backbone.')})
    with pytest.raises(CheckpointError, match=r"no entry of the checkpoint starts with 'nowhere\.'"):
        load_checkpoint(model, state, prefix='nowhere')


@pytest.mark.parametrize('key', ['net', 'model_state_dict', 'module', 'weights'])
def test_weights_are_found_under_any_key(key: str) -> None:
    build = BACKBONES['EfficientVMamba']
    state, model = other_values(build()).state_dict(), build()
    load_checkpoint(model, {'epoch': 1, 'optimizer': {'state': {0: {'step': 1}}}, key: state})
    assert_has(model, state)


@pytest.mark.parametrize('content', [{0: torch.ones(1)}, {'model': {1: torch.ones(1)}}])
def test_keys_that_are_no_names_are_refused(content: dict[Any, Any]) -> None:
    with pytest.raises(CheckpointError, match='the weights must be given by name, got the key'):
        load_checkpoint(BACKBONES['Vim'](), content)


@pytest.mark.parametrize('prefix', PREFIXES)
def test_identify_sees_past_any_prefix(prefix: str) -> None:
    with torch.device('meta'):
        state = EfficientVMamba('tiny').state_dict()
    assert identify({'state_dict': prefixed(state, prefix)}) == 'EfficientVMamba tiny'
    assert identify(prefixed(state, f'{prefix}backbone._orig_mod.')) == 'EfficientVMamba tiny'
