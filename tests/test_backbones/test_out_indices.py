"""Backbones that return early maps alone: what is behind the last of them is not built, trained or loaded."""

import copy
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from mmevm.backbones import EfficientVMamba, Vim, VMamba
from mmevm.checkpoint import CheckpointError, fit_checkpoint, formats, load_checkpoint, report
from mmevm.checkpoint.identify import build_backbone, identify

STAGES = {'dims': [8, 16, 32, 64], 'depths': [1, 2, 1, 1]}
COLUMN = {'dims': [16], 'depths': [4]}
BUILDERS: dict[str, Callable[..., nn.Module]] = {
    'EfficientVMamba': lambda **options: EfficientVMamba(STAGES, **options),
    'without fusion': lambda **options: EfficientVMamba(STAGES, fusion=False, **options),
    'VMamba v0': lambda **options: VMamba(STAGES, **options),
    'VMamba v2': lambda **options: VMamba({**STAGES, 'design': 'v2'}, **options),
    'Vim': lambda **options: Vim(COLUMN, img_size=64, **options),
    'Vim for maps': lambda **options: Vim(COLUMN, img_size=64, out_type='featmap', **options),
    'Vim pooled': lambda **options: Vim(COLUMN, img_size=64, out_type='avg_featmap', **options),
}
EVERY = pytest.mark.parametrize('build', BUILDERS.values(), ids=BUILDERS.keys())
SUBSETS = [(0,), (1,), (2,), (3,), (0, 2), (1, 2), (0, 1, 3)]


@EVERY
@pytest.mark.parametrize('frozen_stages', [-1, 0, 2])
def test_all_that_is_to_be_trained_gets_a_gradient(build: Callable, frozen_stages: int) -> None:
    images, some_trained = torch.randn(2, 3, 48, 32), 0
    for out_indices in SUBSETS:
        model = build(out_indices=out_indices, frozen_stages=frozen_stages).train()
        trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        some_trained += bool(trained)
        if trained:
            sum((out * torch.randn_like(out)).sum() for out in model(images)).backward()
        assert [name for name, p in trained.items() if p.grad is None or not p.grad.any()] == [], out_indices
    assert some_trained >= 2


@EVERY
@pytest.mark.parametrize('out_indices', [(0,), (1, 2), (0, 1, 2), (0, 3)])
def test_a_whole_file_gives_what_the_whole_network_gives(build: Callable, out_indices: tuple) -> None:
    whole, some = build(out_indices=(0, 1, 2, 3)).eval(), build(out_indices=out_indices).eval()
    report = load_checkpoint(some, whole.state_dict())
    lacking = set(whole.state_dict()) - set(some.state_dict())
    assert set(report.dropped) == lacking and report.problems == report.fresh == []
    by_torch = build(out_indices=out_indices).eval()
    missing, unexpected = by_torch.load_state_dict(whole.state_dict())
    assert missing == unexpected == []
    images = torch.randn(1, 3, 48, 64)
    with torch.no_grad():
        expected = [out for i, out in enumerate(whole(images)) if i in out_indices]
        for model in (some, by_torch):
            for got, want in zip(model(images), expected, strict=True):
                torch.testing.assert_close(got, want)


@pytest.mark.parametrize(
    'build, parts',
    [
        (BUILDERS['EfficientVMamba'], {'layers.2.', 'layers.3.', 'layers.1.downsample.'}),
        (BUILDERS['VMamba v2'], {'layers.2.', 'layers.3.', 'layers.1.downsample.'}),
        (BUILDERS['Vim'], {'layers.2.', 'layers.3.', 'norm_f.'}),
    ],
    ids=['EfficientVMamba', 'VMamba', 'Vim'],
)
def test_what_is_not_needed_is_not_built(build: Callable, parts: set[str]) -> None:
    whole, some = build(out_indices=(0, 1, 2, 3)), build(out_indices=(0, 1))
    lacking = {n for n, _ in whole.named_parameters()} - {n for n, _ in some.named_parameters()}
    assert lacking == {n for n, _ in whole.named_parameters() if n.startswith((*parts, 'outnorm2', 'outnorm3'))}
    assert (some.dims, some.depths) == (whole.dims, whole.depths)


@EVERY
def test_the_rest_is_as_in_the_whole_network(build: Callable) -> None:
    def rates(model: nn.Module) -> list[float]:
        blocks = [getattr(stage, 'blocks', [stage]) for stage in model.layers]
        return [block.drop_path.drop_prob for stage in blocks for block in stage]

    whole, some = (build(out_indices=indices, drop_path_rate=0.3) for indices in ((3,), (1,)))
    assert rates(some) == rates(whole)[: len(rates(some))] != []


def test_vims_blocks_start_as_in_the_whole_network() -> None:
    weights = []
    for out_indices in ((23,), (0,)):
        torch.manual_seed(0)
        weights.append(Vim('tiny', out_indices=out_indices).layers[0].mixer.out_proj.weight)
    assert torch.equal(*weights)


@EVERY
def test_frozen_stages_may_lie_behind_the_last_map(build: Callable) -> None:
    model = build(out_indices=(1,), frozen_stages=4).train()
    assert not any(p.requires_grad for p in model.parameters()) and not any(m.training for m in model.layers)


UPSTREAM: dict[str, Callable[..., nn.Module]] = {
    'EfficientVMamba': lambda **options: EfficientVMamba('tiny', **options),
    'VMamba': lambda **options: VMamba('tiny_s1l8', **options),
    'Vim': lambda **options: Vim('tiny', **options),
}
EARLY = {'EfficientVMamba': (0, 1, 2), 'VMamba': (0, 1, 2), 'Vim': (5, 11)}


def released(kind: str) -> dict[str, Tensor]:
    """Names and shapes of a released classifier."""
    with torch.device('meta'):
        last = (23,) if kind == 'Vim' else (3,)
        state = formats.to_upstream(UPSTREAM[kind](out_indices=last).state_dict())
        place = '' if kind == 'Vim' else 'classifier.'
        for leaf in ('weight', 'bias'):
            if kind != 'Vim':
                state[f'classifier.norm.{leaf}'] = state.pop(f'outnorm3.{leaf}')
            state[f'{place}head.{leaf}'] = torch.empty(10)
    return state


@pytest.mark.parametrize('kind', UPSTREAM)
def test_released_classifiers_fit_networks_of_early_maps(kind: str) -> None:
    with torch.device('meta'):
        model = UPSTREAM[kind](out_indices=EARLY[kind])
    report = fit_checkpoint(model, {'model': released(kind)})[1]
    assert [*report.loaded, *report.fresh, *report.derived] and not report.problems
    assert {*report.loaded, *report.fresh, *report.derived} == set(model.state_dict())
    assert all('outnorm' in name for name in report.fresh)


@pytest.mark.parametrize('kind', UPSTREAM)
def test_weights_of_early_stages_are_recognised_and_too_few_for_later_ones(kind: str) -> None:
    with torch.device('meta'):
        early, whole = UPSTREAM[kind](out_indices=EARLY[kind]), UPSTREAM[kind]()
    given = '12 blocks alone, the model needs 24' if kind == 'Vim' else '3 stages alone, the model needs 4'
    with pytest.raises(CheckpointError, match=f'it has the first {given}'):
        load_checkpoint(whole, early.state_dict())
    arch = {'VMamba': 'tiny_s1l8'}.get(kind, 'tiny')
    assert identify({'state_dict': early.state_dict()}) == f'{kind} {arch}'
    with torch.device('meta'):
        other = build_backbone(kind, 'small_s1l20' if kind == 'VMamba' else 'small')
    with pytest.raises(CheckpointError, match=f"the variant '{arch}'"):
        load_checkpoint(other, early.state_dict())


@pytest.mark.parametrize(
    'kind, parts',
    [
        ('EfficientVMamba', 'layers.2.downsample.norm, layers.2.downsample.reduction, layers.3, outnorm3'),
        ('Vim', 'layers.12, layers.13, '),
    ],
)
def test_the_log_names_stages_that_are_left_out(kind: str, parts: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    monkeypatch.setattr(report, 'print_log', lambda line, **_: lines.append(line))
    with torch.device('meta'):
        whole, early = UPSTREAM[kind](), UPSTREAM[kind](out_indices=EARLY[kind])
    load_checkpoint(early, whole.state_dict())
    assert f'dropped {parts}' in lines[0]


# What a network of early maps does not build tells variants apart nevertheless.
OTHERS: dict[str, tuple[nn.Module, nn.Module]] = {}
with torch.device('meta'):
    OTHERS['deeper third stage'] = VMamba('small_s2l15', out_indices=(0, 1)), VMamba('tiny_s2l5')
    OTHERS['shallower third stage'] = VMamba('tiny', out_indices=(0, 1)), VMamba('small')
    three = {'dims': [48, 96, 192], 'depths': [2, 2, 4], 'blocks': ['evss', 'evss', 'inres']}
    OTHERS['a stage more'] = EfficientVMamba(three, out_indices=(0, 1)), EfficientVMamba('tiny')
    OTHERS['more blocks'] = Vim({'dims': [192], 'depths': [12]}, out_indices=(5,)), Vim('tiny')
    OTHERS['fewer blocks and a norm'] = Vim('tiny', out_indices=(5,)), Vim({'dims': [192], 'depths': [12]})


@pytest.mark.parametrize('model, saved', OTHERS.values(), ids=OTHERS.keys())
def test_other_variants_are_refused_by_what_is_not_built(model: nn.Module, saved: nn.Module) -> None:
    with pytest.raises(CheckpointError, match=r'does not fit the model(.|\n)*unexpected'):
        load_checkpoint(model, saved.state_dict())


class WithNorm(EfficientVMamba):
    """A user's own norm of a map that is not returned."""

    def __init__(self, **options: Any) -> None:
        super().__init__(STAGES, **options)
        self.outnorm0 = nn.LayerNorm(8)


def test_what_a_subclass_adds_is_loaded() -> None:
    saved, model = WithNorm(out_indices=(1,)), WithNorm(out_indices=(1,))
    nn.init.normal_(saved.outnorm0.weight)
    for run in (load_checkpoint, nn.Module.load_state_dict):
        model.outnorm0.reset_parameters()
        run(model, copy.copy(saved.state_dict()))
        assert torch.equal(model.outnorm0.weight, saved.outnorm0.weight)


def train_three_iterations(rank: int, store: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group('gloo', init_method=f'file://{store}', rank=rank, world_size=2)
    for build in BUILDERS.values():
        model = DistributedDataParallel(build(out_indices=(0, 1)))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        for _ in range(3):
            optimizer.zero_grad()
            sum((out**2).mean() for out in model(torch.randn(2, 3, 32, 32))).backward()
            optimizer.step()
        # Processes that saw other images hold the same weights.
        mine = torch.cat([p.detach().flatten() for p in model.parameters()])
        both = [torch.empty_like(mine) for _ in range(2)]
        torch.distributed.all_gather(both, mine)
        assert torch.equal(*both)
    torch.distributed.barrier()
    os._exit(0)  # torch may wait for ever for gloo's threads when a wrapped model outlives the process group


def test_two_processes_train_without_a_search_for_unused_parameters(tmp_path: Path) -> None:
    # Not forked: a process whose tests have started autograd's threads could not be.
    torch.multiprocessing.spawn(train_three_iterations, (str(tmp_path / 'store'),), nprocs=2)
