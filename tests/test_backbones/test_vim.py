import argparse
import copy
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmevm.backbones import Vim
from mmevm.checkpoint import CheckpointError, formats, load_checkpoint, report
from mmevm.layers.vim import insert_middle
from mmevm.ops import backends

from ..parity import Fixture, names

NAMES = names('vim')
SMALL = {'dims': [32], 'depths': [3]}


def _loaded(fixture: Fixture, state: dict[str, Tensor]) -> Vim:
    model = Vim(fixture.meta['arch'], img_size=fixture.meta['input_shape'][2]).eval()
    load_checkpoint(model, state)
    return model


def _pair(first: dict[str, Any], second: dict[str, Any]) -> tuple[Vim, Vim]:
    """Two models of the same weights."""
    models = Vim(SMALL, **first).eval(), Vim(SMALL, **second).eval()
    models[1].load_state_dict(models[0].state_dict())
    return models


@pytest.mark.parametrize('arch, stride, millions', [('tiny', 16, 7.148), ('small', 16, 25.797), ('tiny', 8, 7.25)])
def test_vim_has_the_parameters_of_upstream(arch: str, stride: int, millions: float) -> None:
    with torch.device('meta'):
        model = Vim(arch, patch_stride=stride)
    head = 1000 * (model.dims[-1] + 1)
    assert round((sum(p.numel() for p in model.parameters()) + head) / 1e6, 3) == millions


@pytest.mark.parametrize('name', NAMES)
def test_vim_has_upstreams_parameters_by_name(name: str) -> None:
    meta = Fixture(name).meta
    expected = {key: tuple(shape) for key, shape in meta['manifest'].items() if not key.startswith('head.')}
    with torch.device('meta'):
        model = Vim(meta['arch'], img_size=meta['input_shape'][2])
    assert {key: tuple(value.shape) for key, value in model.named_parameters()} == expected
    assert set(model.state_dict()) - set(expected) == {'pos_grid'}  # which upstream's files lack


@pytest.mark.parametrize('name', NAMES)
def test_vim_gives_upstreams_class_token_and_logits(name: str) -> None:
    fixture = Fixture(name)
    state = fixture.state(outnorm=False)
    with torch.no_grad():
        (token,) = _loaded(fixture, state)(fixture.images())
    torch.testing.assert_close(token, fixture.tensor('cls_feature'), rtol=0, atol=2e-4)
    logits = F.linear(token, state['head.weight'], state['head.bias'])
    torch.testing.assert_close(logits, fixture.tensor('logits'), rtol=0, atol=2e-4)


@pytest.mark.parametrize('name', [name for name in NAMES if 'input_grad' in Fixture(name)])
def test_vim_gives_upstreams_gradients(name: str) -> None:
    fixture = Fixture(name)
    state = fixture.state(outnorm=False)
    model, images = _loaded(fixture, state), fixture.images().requires_grad_()
    head = {f'head.{leaf}': nn.Parameter(state[f'head.{leaf}']) for leaf in ('weight', 'bias')}
    loss = fixture.loss((F.linear(model(images)[0], head['head.weight'], head['head.bias']),))
    loss.backward()
    assert loss.item() == pytest.approx(fixture.meta['loss'], abs=1e-6)
    expected = fixture.tensor('input_grad')
    torch.testing.assert_close(images.grad, expected, rtol=0, atol=1e-3 * expected.abs().max().item())
    parameters = dict(model.named_parameters()) | head
    assert parameters.keys() == fixture.meta['grad_norm'].keys()
    for name, norm in fixture.meta['grad_norm'].items():
        assert parameters[name].grad.norm().item() == pytest.approx(norm, rel=1e-3, abs=1e-7), name


@pytest.mark.parametrize('size', [(16, 16), (17, 79), (112, 33)])
@pytest.mark.parametrize('stride', [16, 8])
def test_vim_backends_agree_for_any_size(size: tuple[int, int], stride: int, monkeypatch: Any) -> None:
    model = Vim(SMALL, img_size=64, patch_stride=stride, out_type='featmap', out_indices=(0, -1)).eval()
    images = torch.randn(2, 3, *size)
    with torch.no_grad():
        maps = model(images)
        monkeypatch.setattr(backends, 'choose', lambda *_: 'reference')
        expected = model(images)
    for got, want in zip(maps, expected, strict=True):
        assert got.is_contiguous() and got.shape == (2, 32, *((side - 16) // stride + 1 for side in size))
        torch.testing.assert_close(got, want, rtol=0, atol=2e-5)


@pytest.mark.parametrize('size', [(96, 96), (32, 96), (80, 64)])
def test_vim_interpolates_positions_as_loading_does(size: tuple[int, int]) -> None:
    square, other = _pair({'img_size': 64}, {'img_size': size})
    images = torch.randn(2, 3, *size)
    assert other.grid == (size[0] // 16, size[1] // 16) and square.pos_embed.shape != other.pos_embed.shape
    torch.testing.assert_close(square(images)[0], other(images)[0])
    other.pos_embed.data.zero_()
    assert not torch.allclose(square(images)[0], other(images)[0], atol=1e-3)


def test_vim_out_types_read_the_same_tokens() -> None:
    maps, pooled = _pair({'out_type': 'featmap', 'img_size': 64}, {'out_type': 'avg_featmap', 'img_size': 64})
    token, plain = _pair({'img_size': 64}, {'out_type': 'plain_featmap', 'img_size': 64})
    for model in (token, plain):
        model.load_state_dict(maps.state_dict())
    images, tokens = torch.randn(2, 3, 64, 80), []
    maps.norm_f.register_forward_hook(lambda module, args, out: tokens.append(out))
    (got,) = maps(images)
    torch.testing.assert_close(pooled(images)[0], got.mean(dim=(2, 3)))
    assert torch.equal(plain(images), got)
    patches = got.flatten(2).transpose(1, 2)
    torch.testing.assert_close(insert_middle(patches, token(images)[0].unsqueeze(1), (4, 5)), tokens[0])


def test_vim_returns_the_blocks_asked_for() -> None:
    every, some = _pair({'out_indices': (0, 1, 2)}, {'out_indices': (0, -2)})
    images = torch.randn(1, 3, 64, 64)
    for got, want in zip(some(images), every(images)[:2], strict=True):
        torch.testing.assert_close(got, want)


@pytest.mark.openmmlab
@pytest.mark.parametrize('name', ['Vim', 'mmevm.Vim'])
@pytest.mark.parametrize('library', ['mmdet', 'mmseg', 'mmpretrain'])
def test_vim_is_registered_in_every_library(library: str, name: str) -> None:
    registry = import_module(f'{library}.registry').MODELS
    assert type(registry.build({'type': name, 'arch': SMALL})) is Vim


@pytest.mark.openmmlab
@pytest.mark.parametrize('stride, rescales', [(16, [4, 2, 1, 0.5]), (8, [2, 1, 0.5, 0.25])])
def test_vim_feeds_mmsegs_pyramid(stride: int, rescales: list[float]) -> None:
    from mmseg.models.necks import Feature2Pyramid

    model = Vim({'dims': [32], 'depths': [4]}, patch_stride=stride, out_indices=(0, 1, 2, 3), out_type='featmap')
    neck = Feature2Pyramid(32, rescales, norm_cfg={'type': 'BN'})
    maps = neck(model(torch.randn(2, 3, 64 + 16 - stride, 64 + 16 - stride)))
    assert [tuple(m.shape) for m in maps] == [(2, 32, side, side) for side in (16, 8, 4, 2)]
    sum(m.sum() for m in maps).backward()
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize('frozen_stages', [-1, 0, 2, 3])
def test_vim_keeps_frozen_stages_out_of_training(frozen_stages: int) -> None:
    model = Vim(SMALL, drop_path_rate=0.2, frozen_stages=frozen_stages).train()
    frozen = list(model.layers[: max(frozen_stages, 0)])
    for block in model.layers:
        assert block.training != (block in frozen)
        assert all(p.requires_grad != (block in frozen) for p in block.parameters())
    stem = [model.cls_token, model.pos_embed, *model.patch_embed.parameters()]
    assert all(p.requires_grad == (frozen_stages < 0) for p in stem)
    assert model.norm_f.weight.requires_grad == (frozen_stages < 3)


def test_vim_with_cp_gives_the_same_numbers() -> None:
    images, results = torch.randn(2, 3, 64, 64), []
    for model in _pair({'drop_path_rate': 0.3}, {'drop_path_rate': 0.3, 'with_cp': True}):
        torch.manual_seed(0)
        (token,) = model.train()(images)
        (token**2).mean().backward()
        results.append([token, *(p.grad for p in model.parameters())])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b)


def test_vim_is_stable_in_bfloat16() -> None:
    fixture = Fixture('vim_tiny_64x64')
    model, images = _loaded(fixture, fixture.state(outnorm=False)), fixture.images()
    with torch.no_grad(), torch.autocast('cpu', torch.bfloat16):
        (token,) = model(images)
    expected = fixture.tensor('cls_feature')
    assert (token.float() - expected).abs().mean() < 0.05 * expected.abs().mean()
    with torch.autocast('cpu', torch.bfloat16):
        (token,) = model.train()(images)
    (token.float() ** 2).mean().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_vim_sums_its_blocks_in_float32_in_half_precision() -> None:
    model, seen = Vim(SMALL, out_indices=(1, 2)).eval().to(torch.bfloat16), []
    for block in model.layers:
        block.register_forward_hook(lambda module, args, out: seen.append(out.dtype))
    outs = model(torch.randn(1, 3, 64, 64, dtype=torch.bfloat16))
    assert [out.dtype for out in outs] == [torch.bfloat16] * 2
    assert seen == [torch.float32] * 3


@pytest.mark.parametrize('dtype, tolerance', [(torch.float64, 1e-4), (torch.bfloat16, 0.3)], ids=str)
def test_vim_runs_in_other_precisions(dtype: torch.dtype, tolerance: float) -> None:
    model, images = Vim(SMALL, img_size=32).eval(), torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        (expected,) = model(images)
        (got,) = model.to(dtype)(images.to(dtype))
    assert got.dtype == dtype
    assert (got.double() - expected.double()).abs().max() < tolerance


@pytest.mark.parametrize('out_type', ['cls_token', 'featmap'])
def test_vim_compiles_without_graph_breaks(out_type: str) -> None:
    model, images = Vim(SMALL, out_type=out_type).eval(), torch.randn(2, 3, 64, 96)
    compiled = torch.compile(model, fullgraph=True, backend='aot_eager')
    with torch.no_grad():
        torch.testing.assert_close(compiled(images)[0], model(images)[0], rtol=1e-4, atol=1e-4)


def test_vim_exports_for_any_batch() -> None:
    model = Vim(SMALL).eval()
    shapes = ({0: torch.export.Dim('batch', min=1, max=16)},)
    program = torch.export.export(model, (torch.randn(2, 3, 64, 96),), dynamic_shapes=shapes)
    images = torch.randn(3, 3, 64, 96)
    torch.testing.assert_close(program.module()(images)[0], model(images)[0])


def test_vim_drop_path_grows_linearly() -> None:
    rates = [block.drop_path.drop_prob for block in Vim('tiny', drop_path_rate=0.23).layers]
    assert rates == pytest.approx([0.01 * i for i in range(24)])


def test_vim_trains_every_parameter() -> None:
    model = Vim(SMALL, img_size=32).train()
    (token,) = model(torch.randn(2, 3, 64, 64))
    (token * torch.randn_like(token)).sum().backward()
    missing = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert missing == []


def test_vim_parameters_start_as_upstreams() -> None:
    mixer, out_proj = Vim('tiny').layers[0].mixer, []
    dt = F.softplus(mixer.dt_proj.bias)
    assert 1e-3 * 0.99 < dt.min() < dt.max() < 1e-1 * 1.01
    assert mixer.dt_proj_b.bias.eq(0).all()
    for A_log, D in ((mixer.A_log, mixer.D), (mixer.A_b_log, mixer.D_b)):
        torch.testing.assert_close(A_log.exp(), torch.arange(1.0, 17).expand(384, 16))
        assert D.eq(1).all()
    for depth in (1, 4):
        out_proj.append(Vim({'dims': [192], 'depths': [depth]}).layers[0].mixer.out_proj.weight.std().item())
    assert out_proj[0] == pytest.approx(2 * out_proj[1], rel=0.02)
    assert out_proj[0] == pytest.approx((3 * 384) ** -0.5, rel=0.02)
    assert Vim('small').patch_embed.proj.weight.std().item() == pytest.approx(768**-0.5, rel=0.02)


BAD = {
    'arch': ({'arch': 'huge'}, "`arch` must be one of 'tiny', 'small' or a dict, got 'huge'"),
    'arch keys': ({'arch': {'dims': [8]}}, '`arch` must have the keys dims and depths'),
    'stages': ({'arch': {'dims': [8, 16], 'depths': [1, 1]}}, 'one stage'),
    'out_indices': ({'out_indices': (24,)}, '`out_indices` must name blocks from -24 to 23'),
    'no out_indices': ({'out_indices': ()}, '`out_indices` must name blocks'),
    'out_type': ({'out_type': 'raw'}, "`out_type` must be one of 'cls_token', .* got 'raw'"),
    'one map': ({'out_type': 'plain_featmap', 'out_indices': (1, 2)}, 'returns one map'),
    'frozen_stages': ({'frozen_stages': 25}, '`frozen_stages` must be from -1 to 24, got 25'),
    'img_size': ({'img_size': (8, 64)}, '`img_size` must be at least 16'),
    'patch_stride': ({'patch_stride': 32}, '`patch_stride` must be from 1 to 16, got 32'),
    'drop_path_rate': ({'drop_path_rate': 1.0}, r'`drop_prob` must be in \[0, 1\)'),
}


@pytest.mark.parametrize('kwargs, message', BAD.values(), ids=BAD.keys())
def test_vim_rejects(kwargs: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Vim(**kwargs)


def test_vim_rejects_unknown_options() -> None:
    with pytest.raises(TypeError, match='window_size'):
        Vim(window_size=7)


State = dict[str, Tensor]


@pytest.fixture(scope='module')
def state() -> State:
    """A classification checkpoint of the tiny variant for pictures of 64 x 64, in upstream's spelling."""
    return Fixture('vim_tiny_64x64').state(outnorm=False)


def _prefixed(prefix: str) -> Callable[[State], State]:
    return lambda state: {prefix + name: value for name, value in state.items()}


FORMATS: dict[str, Callable[[State], dict[str, Any]]] = {
    'bare': dict,
    'released': lambda s: {'model': s, 'epoch': 299, 'args': argparse.Namespace(lr=5e-4, model='vim_tiny')},
    'model_ema': lambda s: {'model_ema': s, 'model': None},
    'module': lambda s: {'state_dict': _prefixed('module.')(s)},
    'mmengine': lambda s: {'state_dict': _prefixed('backbone.')(s) | {'head.x': torch.zeros(1)}, 'meta': {}},
}


@pytest.mark.parametrize('wrap', FORMATS.values(), ids=FORMATS.keys())
def test_vim_reads_upstreams_files(wrap: Callable, state: State, tmp_path: Path) -> None:
    torch.save(wrap(state), tmp_path / 'vim.pth')
    init_cfg = {'type': 'Pretrained', 'checkpoint': str(tmp_path / 'vim.pth')}
    for load_strictly in (lambda m: load_checkpoint(m, tmp_path / 'vim.pth'), Vim.init_weights):
        model = Vim('tiny', img_size=64, init_cfg=init_cfg)
        load_strictly(model)
        assert all(torch.equal(value, state[name]) for name, value in model.named_parameters())


def test_vims_names_turn_back_into_upstreams(state: State) -> None:
    converted = formats.convert(state)
    assert {name for name in converted if name not in state} == {'classifier.head.weight', 'classifier.head.bias'}
    assert list(formats.to_upstream(converted)) == list(formats.to_upstream(state)) == list(state)


def test_vim_fills_a_classifiers_head(state: State) -> None:
    model = nn.ModuleDict({'backbone': Vim('tiny', img_size=64), 'head': nn.ModuleDict({'fc': nn.Linear(192, 1000)})})
    model.backbone, model.head = model['backbone'], model['head']
    report = load_checkpoint(model, {'model': state})
    assert report.fresh == report.dropped == report.resampled == []
    assert torch.equal(model['head']['fc'].weight, state['head.weight'])


def test_vim_adapts_positions_of_another_image_size_and_says_so(state: State, monkeypatch: Any) -> None:
    lines: list[str] = []
    monkeypatch.setattr(report, 'print_log', lambda line, **_: lines.append(line))
    model = Vim('tiny', img_size=64, patch_stride=8)
    loaded = load_checkpoint(model, state)
    assert loaded.resampled == ['pos_embed'] and 'interpolated pos_embed' in lines[0]
    assert torch.equal(model.pos_embed[:, 24], state['pos_embed'][:, 8])  # the class token's stays as it is
    assert state['pos_embed'].shape[1] == 17  # and so does the checkpoint


REFUSED = {
    'variant': (lambda s: Vim('small').state_dict(), r"it is the variant 'small' \(dims \[384\], depths \[24\]\)"),
    'other model': (lambda s: {'conv1.weight': torch.zeros(3)}, 'no Vim backbone'),
    'rotary': (lambda s: s | {'rope.freqs_cos': torch.zeros(1)}, r'unexpected: rope\.freqs_cos'),
    'no class token': (lambda s: {k: v for k, v in s.items() if k != 'cls_token'}, 'missing: cls_token'),
    'positions': (
        lambda s: s | {'pos_embed': s['pos_embed'][:, :16]},
        r'pos_embed \(expected \[1, 17, 192\], got \[1, 16, 192\]\)',
    ),
}


@pytest.mark.parametrize('change, message', REFUSED.values(), ids=REFUSED.keys())
def test_vim_refuses_and_stays_unchanged(change: Callable, message: str, state: State) -> None:
    model = Vim('tiny', img_size=64)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(model, change(state))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
