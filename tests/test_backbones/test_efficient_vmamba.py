import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mmevm.backbones import EfficientVMamba
from mmevm.checkpoint import formats, load_checkpoint
from mmevm.layers import InvertedResidual
from mmevm.ops import backends

from ..parity import NAMES, Fixture

SMALL = {'dims': [16, 32, 64, 128], 'depths': [1, 1, 1, 1]}


def _loaded(fixture: Fixture) -> EfficientVMamba:
    model = EfficientVMamba(fixture.meta['arch']).eval()
    load_checkpoint(model, fixture.state())
    return model


def _parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize('arch, millions', [('tiny', 6.494), ('small', 11.274), ('base', 33.717)])
def test_efficient_vmamba_has_the_parameters_of_upstream(arch: str, millions: float) -> None:
    with torch.device('meta'):
        model = EfficientVMamba(arch, out_indices=(3,))
    head = 1000 * (model.dims[-1] + 1)
    assert round((_parameters(model) + head) / 1e6, 3) == millions


@pytest.mark.parametrize('name', NAMES)
def test_efficient_vmamba_gives_upstreams_maps_and_logits(name: str) -> None:
    fixture = Fixture(name)
    state = fixture.state()
    model, classifier = EfficientVMamba(fixture.meta['arch']), EfficientVMamba(fixture.meta['arch'], out_indices=(3,))
    load_checkpoint(model.eval(), state)
    load_checkpoint(classifier.eval(), {key: value for key, value in state.items() if not key.startswith('outnorm')})
    with torch.no_grad():
        for i, got in enumerate(model(fixture.images())):
            assert got.is_contiguous()
            torch.testing.assert_close(got, fixture.tensor(f'stage{i}'), rtol=0, atol=2e-4)
        pooled = classifier(fixture.images())[0].mean(dim=(2, 3))
    logits = pooled @ state['classifier.head.weight'].T + state['classifier.head.bias']
    torch.testing.assert_close(logits, fixture.tensor('logits'), rtol=0, atol=2e-4)


@pytest.mark.parametrize('name', [name for name in NAMES if 'input_grad' in Fixture(name)])
def test_efficient_vmamba_gives_upstreams_gradients(name: str) -> None:
    fixture = Fixture(name)
    model, images = _loaded(fixture), fixture.images().requires_grad_()
    loss = fixture.loss(model(images))
    loss.backward()
    assert loss.item() == pytest.approx(fixture.meta['loss'], abs=1e-6)
    expected = fixture.tensor('input_grad')
    torch.testing.assert_close(images.grad, expected, rtol=0, atol=1e-3 * expected.abs().max().item())
    parameters = dict(model.named_parameters())
    assert len(fixture.meta['grad_norm']) == len(parameters)
    for upstream, norm in fixture.meta['grad_norm'].items():
        grad = parameters[formats.rename(upstream)].grad
        assert grad.norm().item() == pytest.approx(norm, rel=1e-3, abs=1e-7), upstream


@pytest.mark.parametrize('size', [(32, 32), (33, 63), (97, 32), (75, 131)])
@pytest.mark.parametrize('step_size', [2, 3])
def test_efficient_vmamba_backends_agree_for_any_size(size: tuple, step_size: int, monkeypatch: Any) -> None:
    model, images = EfficientVMamba(SMALL, step_size=step_size).eval(), torch.randn(2, 3, *size)
    with torch.no_grad():
        maps = model(images)
        monkeypatch.setattr(backends, 'choose', lambda *_: 'reference')
        expected = model(images)
    h, w = size[0] // 4, size[1] // 4
    for i, (got, want) in enumerate(zip(maps, expected, strict=True)):
        assert got.shape == (2, SMALL['dims'][i], h, w)
        torch.testing.assert_close(got, want, rtol=0, atol=2e-5)
        h, w = (h + 1) // 2, (w + 1) // 2


def test_efficient_vmamba_returns_the_stages_asked_for() -> None:
    model = EfficientVMamba(SMALL).eval()
    some = EfficientVMamba(SMALL, out_indices=(1, 2)).eval()
    some.load_state_dict({k: v for k, v in model.state_dict().items() if k in some.state_dict()})
    images = torch.randn(1, 3, 64, 64)
    for got, want in zip(some(images), model(images)[1:3], strict=True):
        torch.testing.assert_close(got, want)


def test_efficient_vmamba_takes_blocks_per_stage_and_no_fusion() -> None:
    blocks = ['inres', 'evss', 'evss', 'inres']
    model = EfficientVMamba({**SMALL, 'blocks': blocks}, fusion=False)
    kinds = ['inres' if isinstance(s.blocks[0], InvertedResidual) else 'evss' for s in model.layers]
    assert kinds == blocks
    assert not any('conv_branch' in name or '.se.norm' in name for name in model.state_dict())
    assert all(m.isfinite().all() for m in model(torch.randn(2, 3, 64, 64)))


@pytest.mark.parametrize('frozen_stages', [-1, 0, 2, 4])
def test_efficient_vmamba_keeps_frozen_stages_out_of_training(frozen_stages: int) -> None:
    model = EfficientVMamba(SMALL, frozen_stages=frozen_stages).train()
    frozen = [model.patch_embed] * (frozen_stages >= 0) + list(model.layers[: max(frozen_stages, 0)])
    for module in [model.patch_embed, *model.layers]:
        assert module.training != (module in frozen)
        assert all(p.requires_grad != (module in frozen) for p in module.parameters())
    before = copy.deepcopy(model.state_dict())
    model(torch.randn(2, 3, 64, 64))  # batch norms in training mode would move their statistics
    after = model.state_dict()
    for i in range(max(frozen_stages, 0)):
        assert all(torch.equal(before[k], after[k]) for k in before if k.startswith(f'layers.{i}.'))


def test_efficient_vmamba_norm_eval_keeps_batch_statistics() -> None:
    model = EfficientVMamba(SMALL, norm_eval=True).train()
    assert model.training and not any(m.training for m in model.modules() if isinstance(m, nn.BatchNorm2d))
    before = copy.deepcopy(model.state_dict())
    model(torch.randn(2, 3, 64, 64))
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_efficient_vmamba_with_cp_gives_the_same_numbers() -> None:
    images, results = torch.randn(2, 3, 64, 64), []
    plain = EfficientVMamba(SMALL, drop_path_rate=0.3)
    cheap = EfficientVMamba(SMALL, drop_path_rate=0.3, with_cp=True)
    cheap.load_state_dict(plain.state_dict())
    for model in (plain, cheap):
        torch.manual_seed(0)
        maps = model.train()(images)
        sum((m**2).mean() for m in maps).backward()
        # The state dict holds the batch norms' statistics: recomputation must not count a batch twice.
        results.append([*maps, *(p.grad for p in model.parameters()), *model.state_dict().values()])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b)


def test_efficient_vmamba_is_stable_in_bfloat16() -> None:
    fixture = Fixture('evm_tiny_64x64')
    model, images = _loaded(fixture), fixture.images()
    with torch.no_grad(), torch.autocast('cpu', torch.bfloat16):
        for i, got in enumerate(model(images)):
            expected = fixture.tensor(f'stage{i}')
            assert (got.float() - expected).abs().mean() < 0.05 * expected.abs().mean()
    with torch.autocast('cpu', torch.bfloat16):
        maps = model.train()(images)
    sum((m.float() ** 2).mean() for m in maps).backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize('dtype, tolerance', [(torch.float64, 1e-4), (torch.bfloat16, 0.3)], ids=str)
def test_efficient_vmamba_runs_in_other_precisions(dtype: torch.dtype, tolerance: float) -> None:
    model, images = EfficientVMamba(SMALL).eval(), torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = model(images)
        maps = model.to(dtype)(images.to(dtype))
    for got, want in zip(maps, expected, strict=True):
        assert got.dtype == dtype
        assert (got.double() - want.double()).abs().max() < tolerance


def test_efficient_vmamba_compiles_without_graph_breaks() -> None:
    model, images = EfficientVMamba(SMALL).eval(), torch.randn(2, 3, 64, 96)
    compiled = torch.compile(model, fullgraph=True, backend='aot_eager')
    with torch.no_grad():
        for got, want in zip(compiled(images), model(images), strict=True):
            torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)


def test_efficient_vmamba_exports_for_any_batch() -> None:
    model = EfficientVMamba(SMALL).eval()
    shapes = ({0: torch.export.Dim('batch', min=1, max=16)},)
    program = torch.export.export(model, (torch.randn(2, 3, 64, 96),), dynamic_shapes=shapes)
    images = torch.randn(3, 3, 64, 96)
    for got, want in zip(program.module()(images), model(images), strict=True):
        torch.testing.assert_close(got, want)


def test_efficient_vmamba_drop_path_grows_linearly() -> None:
    model = EfficientVMamba('tiny', drop_path_rate=0.2)
    rates = [block.drop_path.drop_prob for stage in model.layers for block in stage.blocks]
    assert rates == pytest.approx([0.2 * i / 9 for i in range(10)])


BAD = {
    'arch': ({'arch': 'huge'}, "`arch` must be one of 'tiny', 'small', 'base' or a dict, got 'huge'"),
    'arch keys': ({'arch': {'dims': [8], 'depths': [1], 'heads': 3}}, '`arch` must have the keys'),
    'depths': ({'arch': {'dims': [8, 16], 'depths': [1]}}, 'one entry per stage'),
    'dims': ({'arch': {'dims': [8, 24], 'depths': [1, 1]}}, '`dims` must double'),
    'blocks': ({'arch': {'dims': [8], 'depths': [1], 'blocks': ['conv']}}, "'evss' or 'inres'"),
    'out_indices': ({'out_indices': (4,)}, '`out_indices` must name stages from 0 to 3'),
    'frozen_stages': ({'frozen_stages': 5}, '`frozen_stages` must be from -1 to 4, got 5'),
    'step_size': ({'step_size': 1}, '`step_size` must be at least 2'),
    'drop_path_rate': ({'drop_path_rate': 1.0}, r'`drop_prob` must be in \[0, 1\)'),
}


@pytest.mark.parametrize('kwargs, message', BAD.values(), ids=BAD.keys())
def test_efficient_vmamba_rejects(kwargs: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EfficientVMamba(**kwargs)


def test_efficient_vmamba_rejects_unknown_options() -> None:
    with pytest.raises(TypeError, match='window_size'):
        EfficientVMamba(window_size=7)


def test_efficient_vmamba_trains_every_parameter() -> None:
    model = EfficientVMamba(SMALL).train()
    sum((m * torch.randn_like(m)).sum() for m in model(torch.randn(2, 3, 64, 64))).backward()
    missing = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert missing == []


def test_scan_parameters_start_as_upstreams() -> None:
    op = EfficientVMamba('tiny').layers[0].blocks[0].op
    dt = nn.functional.softplus(op.dt_projs_bias)
    assert 1e-3 * 0.99 < dt.min() < dt.max() < 1e-1 * 1.01
    A: Tensor = -op.A_logs.exp()
    torch.testing.assert_close(A, -torch.arange(1.0, 17).expand(384, 16))
    assert op.Ds.eq(1).all() and op.dt_projs_weight.abs().max() <= 3**-0.5
