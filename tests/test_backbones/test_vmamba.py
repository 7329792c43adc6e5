"""VMamba: upstream's maps, logits and gradients, its settings and options, compiled and exported."""

from functools import lru_cache
from typing import Any

import pytest
import torch
from torch import Tensor

from mmevm.backbones import VMamba
from mmevm.checkpoint import formats, load_checkpoint
from mmevm.layers import SS2D, ConvStem, PatchEmbed
from mmevm.ops import backends, reference

from ..parity import Fixture, names

NAMES = names('vmamba')
SMALL = {
    'v0': {'dims': [16, 32, 64, 128], 'depths': [1, 1, 2, 1]},
    'v2': {'dims': [16, 32, 64, 128], 'depths': [1, 1, 2, 1], 'design': 'v2', 'ssm_ratio': 1.0},
}
DESIGNS = pytest.mark.parametrize('design', SMALL)


@lru_cache(maxsize=1)
def _fixture(name: str) -> tuple[Fixture, dict[str, Tensor]]:
    """A fixture and its weights, which take seconds to make; the tests come in the order of the fixtures."""
    fixture = Fixture(name)
    return fixture, fixture.state()


def _arch(fixture: Fixture) -> str:
    return fixture.meta['arch'].removeprefix('v0_')


def _loaded(name: str, **kwargs: Any) -> VMamba:
    fixture, state = _fixture(name)
    model = VMamba(_arch(fixture), **kwargs).eval()
    if 'out_indices' in kwargs:
        state = {key: value for key, value in state.items() if not key.startswith('outnorm')}
    load_checkpoint(model, state)
    return model


# Upstream's table; the fixtures' exact numbers where there is one.
@pytest.mark.parametrize(
    'arch, millions',
    [
        ('tiny', 22.893448),
        ('small', 44.4),
        ('base', 76.3),
        ('tiny_s1l8', 30.249064),
        ('tiny_s2l5', 31),
        ('small_s2l15', 50.147752),
        ('small_s1l20', 49),
        ('base_s2l15', 88.5578),
        ('base_s1l20', 87),
    ],
)
def test_vmamba_has_the_parameters_of_upstream(arch: str, millions: float) -> None:
    with torch.device('meta'):
        model = VMamba(arch, out_indices=(3,))
    total = sum(p.numel() for p in model.parameters()) + 1000 * (model.dims[-1] + 1)
    assert round(total / 1e6, len(str(millions).partition('.')[2])) == millions


@pytest.mark.parametrize('name', NAMES)
def test_vmamba_follows_upstreams_settings_from_its_arch(name: str) -> None:
    settings = Fixture(name).meta['settings']
    with torch.device('meta'):
        model = VMamba(_arch(Fixture(name)))
    block = model.layers[1].blocks[0]
    C, mixer = model.dims[1], block.op
    later = settings['patchembed_version'] == 'v2'
    assert later == (settings['downsample_version'] == 'v3') == (settings['norm_layer'] == 'ln2d')
    assert isinstance(model.patch_embed, ConvStem if later else PatchEmbed)
    assert (model.dims[0], model.depths) == (settings['dims'], settings['depths'])
    assert (mixer.d_state, mixer.d_inner) == (settings['ssm_d_state'], settings['ssm_ratio'] * C)
    assert mixer.gate == (not settings['forward_type'].endswith('noz'))
    assert (mixer.conv2d.bias is not None) == settings['ssm_conv_bias']
    assert (block.mlp.fc1.out_features / C if block.has_mlp else 0) == settings['mlp_ratio']


@pytest.mark.parametrize('name', NAMES)
def test_vmamba_gives_upstreams_maps_and_logits(name: str) -> None:
    fixture, state = _fixture(name)
    with torch.no_grad():
        for i, got in enumerate(_loaded(name)(fixture.images())):
            assert got.is_contiguous()
            torch.testing.assert_close(got, fixture.tensor(f'stage{i}'), rtol=0, atol=2e-4)
        pooled = _loaded(name, out_indices=(3,))(fixture.images())[0].mean(dim=(2, 3))
    logits = pooled @ state['classifier.head.weight'].T + state['classifier.head.bias']
    torch.testing.assert_close(logits, fixture.tensor('logits'), rtol=0, atol=2e-4)


@pytest.mark.parametrize('name', [name for name in NAMES if 'input_grad' in Fixture(name)])
def test_vmamba_gives_upstreams_gradients(name: str) -> None:
    fixture, _ = _fixture(name)
    model, images = _loaded(name), fixture.images().requires_grad_()
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


def test_ss2d_sums_the_scans_along_four_routes() -> None:
    torch.manual_seed(0)
    mixer, x = SS2D(16, d_state=3, expand=1.0).double(), torch.randn(2, 3, 5, 16, dtype=torch.float64)
    expected = torch.zeros_like(x)
    for k, order in enumerate(['rows', 'columns', 'rows', 'columns']):
        cells = x if order == 'rows' else x.transpose(1, 2)
        u = cells.flatten(1, 2).mT  # [B, D, L]
        u = u.flip(-1) if k >= 2 else u
        rank, Bs, Cs = (mixer.x_proj_weight[k] @ u).split([1, 3, 3], dim=1)
        A = -mixer.A_logs.exp().view(4, 16, 3)[k]
        y, _ = reference.selective_scan(
            u,
            mixer.dt_projs_weight[k] @ rank,
            A,
            Bs[:, None],
            Cs[:, None],
            mixer.Ds.view(4, 16)[k],
            mixer.dt_projs_bias[k],
            True,
        )
        y = (y.flip(-1) if k >= 2 else y).mT.unflatten(1, cells.shape[1:3])
        expected += y if order == 'rows' else y.transpose(1, 2)
    torch.testing.assert_close(mixer.scan(x), expected)


@DESIGNS
@pytest.mark.parametrize('size', [(32, 32), (33, 63), (97, 34)])
def test_vmamba_backends_agree_for_any_size(design: str, size: tuple, monkeypatch: Any) -> None:
    model, images = VMamba(SMALL[design]).eval(), torch.randn(2, 3, *size)
    with torch.no_grad():
        maps = model(images)
        monkeypatch.setattr(backends, 'choose', lambda *_: 'reference')
        expected = model(images)
    h, w = (n // 4 if design == 'v0' else -(-n // 4) for n in size)
    for i, (got, want) in enumerate(zip(maps, expected, strict=True)):
        assert got.shape == (2, SMALL[design]['dims'][i], h, w)
        torch.testing.assert_close(got, want, rtol=0, atol=2e-5)
        h, w = (h + 1) // 2, (w + 1) // 2


@DESIGNS
def test_vmamba_returns_the_stages_asked_for(design: str) -> None:
    model, some = VMamba(SMALL[design]).eval(), VMamba(SMALL[design], out_indices=(1, 2)).eval()
    some.load_state_dict({k: v for k, v in model.state_dict().items() if k in some.state_dict()})
    images = torch.randn(1, 3, 64, 64)
    for got, want in zip(some(images), model(images)[1:3], strict=True):
        torch.testing.assert_close(got, want)


@DESIGNS
@pytest.mark.parametrize('frozen_stages', [-1, 0, 2, 4])
def test_vmamba_keeps_frozen_stages_out_of_training(design: str, frozen_stages: int) -> None:
    model = VMamba(SMALL[design], frozen_stages=frozen_stages).train()
    frozen = [model.patch_embed] * (frozen_stages >= 0) + list(model.layers[: max(frozen_stages, 0)])
    for module in [model.patch_embed, *model.layers]:
        assert module.training != (module in frozen)
        assert all(p.requires_grad != (module in frozen) for p in module.parameters())


@DESIGNS
def test_vmamba_with_cp_gives_the_same_numbers(design: str) -> None:
    images, results = torch.randn(2, 3, 64, 64), []
    plain, cheap = (VMamba(SMALL[design], drop_path_rate=0.3, with_cp=cp) for cp in (False, True))
    cheap.load_state_dict(plain.state_dict())
    for model in (plain, cheap):
        torch.manual_seed(0)
        maps = model.train()(images)
        sum((m**2).mean() for m in maps).backward()
        results.append([*maps, *(p.grad for p in model.parameters())])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b)


@DESIGNS
def test_vmamba_trains_every_parameter(design: str) -> None:
    model = VMamba(SMALL[design]).train()
    sum((m * torch.randn_like(m)).sum() for m in model(torch.randn(2, 3, 64, 64))).backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


@DESIGNS
@pytest.mark.parametrize('dtype, tolerance', [(torch.float64, 1e-4), (torch.bfloat16, 0.3)], ids=str)
def test_vmamba_runs_in_other_precisions(design: str, dtype: torch.dtype, tolerance: float) -> None:
    model, images = VMamba(SMALL[design]).eval(), torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = model(images)
        with torch.autocast('cpu', torch.bfloat16):
            mixed = model(images)
        maps = model.to(dtype)(images.to(dtype))
    for got, half, want in zip(maps, mixed, expected, strict=True):
        assert got.dtype == dtype
        assert (got.double() - want.double()).abs().max() < tolerance
        assert (half.float() - want).abs().mean() < 0.05 * want.abs().mean()


@DESIGNS
def test_vmamba_compiles_and_exports(design: str) -> None:
    two_stages = {key: value[:2] if isinstance(value, list) else value for key, value in SMALL[design].items()}
    model, images = VMamba(two_stages, out_indices=(0, 1)).eval(), torch.randn(3, 3, 64, 96)
    compiled = torch.compile(model, fullgraph=True, backend='aot_eager')
    shapes = ({0: torch.export.Dim('batch', min=1, max=16)},)
    program = torch.export.export(model, (torch.randn(2, 3, 64, 96),), dynamic_shapes=shapes).module()
    with torch.no_grad():
        for a, b, want in zip(compiled(images), program(images), model(images), strict=True):
            torch.testing.assert_close(a, want, rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(b, want, rtol=1e-4, atol=1e-4)


def test_vmambas_convolutions_keep_the_maps_layout_when_weights_are_loaded() -> None:
    model = VMamba(SMALL['v2'])
    model.load_state_dict({name: value.contiguous() for name, value in model.state_dict().items()})
    for conv in (model.patch_embed.proj2, model.layers[0].downsample.conv):
        assert conv.weight.is_contiguous(memory_format=torch.channels_last) and not conv.weight.is_contiguous()


def test_vmamba_drop_path_grows_linearly() -> None:
    with torch.device('meta'):
        model = VMamba('tiny_s1l8', drop_path_rate=0.2)
    rates = [block.drop_path.drop_prob for stage in model.layers for block in stage.blocks]
    assert rates == pytest.approx([0.2 * i / 13 for i in range(14)])


BAD = {
    'arch': ({'arch': 'huge'}, "`arch` must be one of 'tiny', 'small', .* or a dict, got 'huge'"),
    'arch keys': ({'arch': {'dims': [8], 'depths': [1], 'heads': 3}}, 'optionally design, ssm_ratio'),
    'depths': ({'arch': {'dims': [8, 16], 'depths': [1]}}, 'one entry per stage'),
    'dims': ({'arch': {'dims': [8, 24], 'depths': [1, 1]}}, '`dims` must double'),
    'design': ({'arch': {'dims': [8], 'depths': [1], 'design': 'v5'}}, "`design` must be 'v0' or 'v2', got 'v5'"),
    'ssm_ratio': ({'arch': {'dims': [8], 'depths': [1], 'ssm_ratio': 0}}, '`ssm_ratio` must be positive'),
    'out_indices': ({'out_indices': (4,)}, '`out_indices` must name stages from 0 to 3'),
    'frozen_stages': ({'frozen_stages': 5}, '`frozen_stages` must be from -1 to 4, got 5'),
    'drop_path_rate': ({'drop_path_rate': 1.0}, r'`drop_prob` must be in \[0, 1\)'),
}


@pytest.mark.parametrize('kwargs, message', BAD.values(), ids=BAD.keys())
def test_vmamba_rejects(kwargs: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        VMamba(**kwargs)


def test_vmamba_is_found_in_the_registries() -> None:
    from mmengine.registry import MODELS as ROOT_MODELS

    from mmevm.registry import MODELS

    assert MODELS.get('VMamba') is ROOT_MODELS.get('VMamba') is ROOT_MODELS.get('mmevm.VMamba') is VMamba
