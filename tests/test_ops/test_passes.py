"""The fused passes: every operator against its formula, and where they serve."""

import copy
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmevm.ops import Route, es2d_routes, passes, visual_scan
from mmevm.ops.passes import ACTIVATIONS, NormStatistics
from mmevm.ops.routes import flatten

from .samples import relative_error

pytestmark = pytest.mark.usefixtures('extension')

# B, H, W, C: whole registers and parts of them, maps narrower than a kernel, more tokens than a task has.
SHAPES = [(2, 7, 5, 48), (1, 1, 1, 7), (3, 2, 2, 33), (1, 40, 37, 96), (2, 3, 50, 5)]
OPERATORS = torch.ops.mmevm


@pytest.fixture(autouse=True, params=[1, 3])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    torch.manual_seed(0)
    with torch.no_grad():
        yield request.param
    torch.set_num_threads(before)


def statistics(C: int) -> NormStatistics:
    return NormStatistics(torch.randn(C), torch.rand(C) + 0.1, torch.randn(C), torch.randn(C), 1e-3)


def layer_norm(C: int) -> nn.LayerNorm:
    norm = nn.LayerNorm(C)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    return norm


def exact(formula: Callable[..., Tensor], *args: object, **kwargs: object) -> Tensor:
    """The plain formula in float64, which the passes do not serve."""

    def convert(value: object) -> object:
        if isinstance(value, Tensor):
            return value.double()
        if isinstance(value, NormStatistics):
            return NormStatistics(*(t.double() for t in value[:4]), value.eps)
        return copy.deepcopy(value).double() if isinstance(value, nn.Module) else value

    return formula(*map(convert, args), **{name: convert(value) for name, value in kwargs.items()})


def half(value: object) -> object:
    """A map or parameter in bfloat16; norms stay in float32, as they may."""
    if isinstance(value, nn.Linear):
        return copy.deepcopy(value).bfloat16()
    return value.bfloat16() if isinstance(value, Tensor) else value


def assert_fused(formula: Callable[..., Tensor], name: str, *args: object, **kwargs: object) -> None:
    """The function runs operator ``name`` once, and agrees with its formula in float64."""
    halved = [half(value) for value in args]
    expected = exact(formula, *halved, **{name: half(value) for name, value in kwargs.items()})
    got = formula(*halved, **{name: half(value) for name, value in kwargs.items()})
    assert got.dtype == torch.bfloat16 and relative_error(got, expected) < 4e-3
    expected = exact(formula, *args, **kwargs)
    with torch.profiler.profile() as profile:
        got = formula(*args, **kwargs)
    assert [event.count for event in profile.key_averages() if event.key == f'mmevm::{name}'] == [1]
    assert got.shape == expected.shape and got.dtype == torch.float32
    assert relative_error(got, expected) < 3e-6


@pytest.mark.parametrize('shape', SHAPES)
@pytest.mark.parametrize('activation', ACTIVATIONS)
def test_depthwise_conv(shape: tuple[int, ...], activation: str | None) -> None:
    C = shape[3]
    x, weight, bias = torch.randn(shape), torch.randn(C, 1, 3, 3), torch.randn(C)
    for args in ((), (bias,), (None, statistics(C)), (bias, statistics(C))):
        assert_fused(passes.depthwise_conv, 'depthwise_conv', x, weight, *args, activation=activation)


@pytest.mark.parametrize('length', [1, 2, 5, 70])
@pytest.mark.parametrize('before, after', [(3, 0), (0, 3), (1, 2)])
def test_convolutions_of_sequences(length: int, before: int, after: int) -> None:
    x, weight, bias = torch.randn(2, 1, length, 40), torch.randn(40, 1, 1, 4), torch.randn(40)
    sides = {'before': (0, before), 'after': (0, after)}
    assert_fused(passes.depthwise_conv, 'depthwise_conv', x, weight, bias, activation='silu', **sides)
    y = F.conv1d(F.pad(x.squeeze(1).mT, (before, after)), weight.squeeze(1), bias, groups=40)
    assert relative_error(passes.depthwise_conv(x, weight, bias, **sides), y.mT.unsqueeze(1)) < 1e-5
    # As those of a layer for sequences, and backwards.
    one_row, expected = weight.squeeze(2), passes.depthwise_conv(x, weight, bias, **sides)
    assert torch.equal(passes.depthwise_conv(x, one_row, bias, **sides), expected)
    assert torch.equal(passes.depthwise_conv(x, one_row.flip(-1), bias, **sides, flip=True), expected)
    assert_fused(passes.depthwise_conv, 'depthwise_conv', x, one_row, bias, activation='silu', **sides, flip=True)


@pytest.mark.parametrize('shape', SHAPES)
def test_depthwise_conv_with_flipped_kernels(shape: tuple[int, ...]) -> None:
    x, weight, norm = torch.randn(shape), torch.randn(shape[3], 1, 3, 3), statistics(shape[3])
    assert_fused(passes.depthwise_conv, 'depthwise_conv', x, weight, None, norm, flip=True)
    flipped = passes.depthwise_conv(x, weight.flip(2, 3), None, norm)
    assert torch.equal(passes.depthwise_conv(x, weight, None, norm, flip=True), flipped)
    weight.requires_grad_()
    with torch.enable_grad():
        assert relative_error(passes.depthwise_conv(x, weight, None, norm, flip=True), flipped) < 1e-5


@pytest.mark.parametrize('shape', SHAPES)
@pytest.mark.parametrize('activation', ACTIVATIONS)
def test_batch_norm(shape: tuple[int, ...], activation: str | None) -> None:
    for residual in (None, torch.randn(shape)):
        assert_fused(passes.batch_norm_, 'batch_norm_', torch.randn(shape), statistics(shape[3]), activation, residual)


# Tokens, C_in, C_out: less than a block, parts of one, several blocks and a rest.
PRODUCTS = [(1, 7, 5), (13, 48, 96), (49, 100, 33), (200, 31, 145), (5, 300, 17), (2, 1, 9), (64, 16, 48)]


@pytest.mark.parametrize('tokens, C_in, C_out', PRODUCTS)
@pytest.mark.parametrize('activation', ACTIVATIONS)
def test_linear(tokens: int, C_in: int, C_out: int, activation: str | None) -> None:
    x, weight, bias = torch.randn(1, tokens, 1, C_in), torch.randn(C_out, C_in), torch.randn(C_out)
    residual = torch.randn(1, tokens, 1, C_out)
    for args in ((), (bias,), (None, statistics(C_out)), (bias, statistics(C_out))):
        for added in (None, residual):
            expected = exact(passes.linear, x, weight, *args, activation=activation, residual=added)
            with torch.profiler.profile() as profile:
                got = passes.linear(x, weight, *args, activation=activation, residual=added)
            assert [e.count for e in profile.key_averages() if e.key == 'mmevm::linear'] == [1]
            assert got.shape == expected.shape and relative_error(got, expected) < 3e-6


@pytest.mark.parametrize('tokens, C_in, C_out', PRODUCTS)
@pytest.mark.parametrize('activation', ACTIVATIONS)
def test_linear_in_bfloat16(
    tokens: int, C_in: int, C_out: int, activation: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sums in float32, rounded once."""
    monkeypatch.setattr(passes, '_PRODUCTS', (torch.bfloat16,))
    x, weight = torch.randn(1, tokens, 1, C_in).bfloat16(), torch.randn(C_out, C_in).bfloat16()
    bias, residual = torch.randn(C_out), torch.randn(1, tokens, 1, C_out).bfloat16()
    for args in ((), (bias,), (None, statistics(C_out)), (bias.bfloat16(), statistics(C_out))):
        for added in (None, residual):
            expected = exact(passes.linear, x, weight, *args, activation=activation, residual=added)
            with torch.profiler.profile() as profile:
                got = passes.linear(x, weight, *args, activation=activation, residual=added)
            assert [e.count for e in profile.key_averages() if e.key == 'mmevm::linear'] == [1]
            assert got.dtype == torch.bfloat16 and got.shape == expected.shape
            # Half a unit in the last of eight bits, of each value.
            assert (got.double() - expected).abs().sub(expected.abs() * 2**-8).max() < 3e-6 * expected.abs().max()


def test_linear_of_other_dtypes_and_under_autocast_is_pytorchs() -> None:
    x, weight = torch.randn(2, 9, 16), torch.randn(8, 16)
    with torch.profiler.profile() as profile:
        half = passes.linear(x.half(), weight.half())
        mixed = passes.linear(x.bfloat16(), weight.bfloat16(), residual=torch.randn(2, 9, 8))
        with torch.autocast('cpu', torch.bfloat16):
            cast = passes.linear(x, weight)
        strided = passes.linear(x.mT.contiguous().mT, weight)
    assert (half.dtype, mixed.dtype, cast.dtype) == (torch.float16, torch.float32, torch.bfloat16)
    assert torch.equal(strided, F.linear(x.mT.contiguous().mT, weight))
    assert not [event for event in profile.key_averages() if event.key == 'mmevm::linear']


def test_linear_of_nothing() -> None:
    assert passes.linear(torch.empty(0, 3, 8), torch.randn(5, 8)).shape == (0, 3, 5)
    assert passes.linear(torch.empty(2, 8), torch.randn(0, 8)).shape == (2, 0)
    assert torch.equal(passes.linear(torch.empty(2, 0), torch.randn(3, 0), torch.ones(3)), torch.ones(2, 3))


@pytest.mark.parametrize('shape', SHAPES)
def test_norms_and_sums(shape: tuple[int, ...]) -> None:
    B, _, _, C = shape
    x, y, z = (torch.randn(shape) for _ in range(3))
    assert_fused(passes.gated_norm_, 'gated_norm_', 5 + x.clone(), z, layer_norm(C))
    assert_fused(passes.map_mean, 'map_mean', 5 + x)
    assert_fused(passes.norm_mean, 'norm_mean', 5 + x, layer_norm(C))
    assert_fused(passes.layer_norm, 'layer_norm', 5 + x, layer_norm(C))
    assert_fused(passes.rms_norm, 'rms_norm', x, torch.randn(C), 1e-5)
    assert_fused(passes.gated_mean_, 'gated_mean_', x.clone(), y, z)
    hidden = 1 + C // 3
    reduce, expand = nn.Linear(C, hidden), nn.Linear(hidden, C, bias=B == 2)
    for activation in ('relu', 'gelu'):
        assert_fused(passes.channel_gate, 'channel_gate', x, reduce, expand, activation)
    scales = torch.rand(2, B, 1, 1, C)
    assert_fused(passes.scaled_sum_, 'scaled_sum_', x.clone(), scales[0], y, scales[1], z)


def test_values_at_the_ends_of_the_range() -> None:
    x = torch.tensor([-torch.inf, -200.0, -20.0, -1e-30, 0.0, 1e-30, 20.0, 200.0, torch.inf, torch.nan]).view(
        1, 1, 1, 10
    )
    norm = NormStatistics(torch.zeros(10), torch.ones(10), torch.ones(10), torch.zeros(10), 0.0)
    for name, activation in ACTIVATIONS.items():
        got, expected = passes.batch_norm_(x.clone(), norm, name).double(), activation(x.double())
        assert torch.allclose(got, expected, rtol=1e-6, atol=1e-20, equal_nan=True), name


def test_equal_numbers_of_threads_give_equal_results() -> None:
    x, norm = torch.randn(2, 40, 41, 96), layer_norm(96)
    assert torch.equal(passes.norm_mean(x, norm), passes.norm_mean(x, norm))


PAIR = [Route(0, 0, False, reverse, parameters=int(reverse), projection=int(reverse)) for reverse in (False, True)]


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize(
    'routes, step',
    [
        ([route._replace(projection=route.parameters) for route in es2d_routes(2)], 2),
        ([route._replace(projection=route.parameters) for route in es2d_routes(3)], 3),
        (PAIR, 1),
        ([route._replace(projection=0) for route in PAIR], 1),
        # Sets that one product projects to, and sets that lie otherwise in memory.
        ([Route(0, 0, k % 2 == 1, k >= 2, parameters=k, projection=k) for k in range(4)], 1),
        (
            [
                Route(0, 0, False, False, parameters=k, projection=projection)
                for k, projection in enumerate((1, 0, 2, 2, 3))
            ],
            1,
        ),
        (PAIR[1:], 1),
        ([PAIR[1]._replace(parameters=0, projection=0)], 1),
    ],
)
def test_projected_scan(routes: list[Route], step: int, dtype: torch.dtype) -> None:
    for H, W, D, N, R in ((9, 7, 40, 5, 3), (1, 130, 16, 16, 12), (2, 1, 3, 1, 1)):
        parameter = torch.float64 if dtype == torch.float64 else torch.float32
        K = 1 + max(max(route.parameters, route.projection) for route in routes)
        x = torch.randn(2, H, W, D, dtype=dtype)
        x_proj = (torch.randn(K, R + 2 * N, D) * D**-0.5).to(dtype)
        dt_weight, dt_bias = torch.randn(K, D, R, dtype=parameter) / R, torch.randn(K, D, dtype=parameter)
        A_logs, Ds = torch.randn(K, D, N, dtype=parameter), torch.randn(K, D, dtype=parameter)
        got = OPERATORS.projected_visual_scan(x, x_proj, dt_weight, dt_bias, A_logs, Ds, step, flatten(routes))
        x_dbl = torch.einsum('bhwd,pmd->bhwpm', x.double(), x_proj.double())
        tensors = (t.double() for t in (dt_weight, -A_logs.double().exp(), Ds))
        expected = visual_scan(
            x.double(), x_dbl, *tensors, routes=routes, step=step, dt_bias=dt_bias.double(), backend='reference'
        )
        assert got.dtype == dtype
        assert relative_error(got, expected) < {torch.float32: 1e-5, torch.float64: 1e-12, torch.bfloat16: 1e-2}[dtype]
        if K == 1:
            parameters = (t.squeeze(0) for t in (x_proj, dt_weight, dt_bias, A_logs, Ds))
            assert torch.equal(OPERATORS.projected_visual_scan(x, *parameters, step, flatten(routes)), got)


def test_where_they_serve() -> None:
    x = torch.randn(1, 4, 4, 8)
    assert passes.available(x, None, nn.Parameter(torch.ones(3)))
    assert passes.available(x.bfloat16(), x.bfloat16(), x) and not passes.available(x, x.bfloat16())
    assert not passes.available(x.double()) and not passes.available(x.half()) and not passes.available(x.mT)
    assert not passes.available(x, torch.empty(3, device='meta'))
    with torch.enable_grad():
        assert not passes.available(x)
    assert not torch.func.vmap(lambda t: torch.tensor(passes.available(t)))(x).any()


def test_compiled_code_takes_them() -> None:
    called: list[str] = []

    def backend(module: torch.fx.GraphModule, _: list[Tensor]) -> torch.fx.GraphModule:
        called.extend(str(node.target) for node in module.graph.nodes if node.op == 'call_function')
        return module

    x, norm = torch.randn(1, 4, 5, 8), layer_norm(8)
    compiled = torch.compile(lambda x: passes.norm_mean(x, norm), backend=backend, fullgraph=True)
    assert torch.equal(compiled(x), passes.norm_mean(x, norm))
    assert 'mmevm.norm_mean' in called
    program = torch.export.export(NormMean(norm), (x,))
    assert not [node for node in program.graph.nodes if 'mmevm' in str(node.target)]


class NormMean(nn.Module):
    def __init__(self, norm: nn.LayerNorm) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        return passes.norm_mean(x, self.norm)


@pytest.mark.parametrize(
    'call, message',
    [
        (lambda x, w, n: OPERATORS.depthwise_conv(x, w[:, :, :2], None, *[None] * 4, 0.0, 1, 1, 0), r'\[C, 1, 3, 3\]'),
        (lambda x, w, n: OPERATORS.depthwise_conv(x, w[:5], None, *[None] * 4, 0.0, 1, 1, 0), r'\[8, 1, 3, 3\]'),
        (lambda x, w, n: OPERATORS.depthwise_conv(x, w[:, 0], None, *[None] * 4, 0.0, 0, 3, 0), r'\[C, 1, 3, 3\]'),
        (lambda x, w, n: OPERATORS.depthwise_conv(x, n, None, *[None] * 4, 0.0, 0, 3, 0), r'\[C, 1, 3, 3\]'),
        (lambda x, w, n: OPERATORS.depthwise_conv(x, w[None], None, *[None] * 4, 0.0, 0, 0, 0), r'\[C, 1, 3, 3\]'),
        (lambda x, w, n: OPERATORS.depthwise_conv(x, w[:5, 0, :1], None, *[None] * 4, 0.0, 0, 0, 0), r'\[C, 1, 3, 3\]'),
        (
            lambda x, w, n: OPERATORS.depthwise_conv(x, torch.ones(5, 1, 4), None, *[None] * 4, 0.0, 0, 3, 0),
            r'\[8, 1, 4\]',
        ),
        (lambda x, w, n: OPERATORS.depthwise_conv(x, w, None, *[None] * 4, 0.0, 3, 1, 0), '`top` 3'),
        (lambda x, w, n: OPERATORS.depthwise_conv(x, w, None, *[None] * 4, 0.0, 1, 1, 9), '`activation`'),
        (lambda x, w, n: OPERATORS.depthwise_conv(x, w, None, n, None, n, n, 0.0, 1, 1, 0), 'all of `mean`'),
        (lambda x, w, n: OPERATORS.depthwise_conv(x.double(), w, None, *[None] * 4, 0.0, 1, 1, 0), 'float32'),
        (lambda x, w, n: OPERATORS.map_mean(x[0]), r'\[B, H, W, C\]'),
        (lambda x, w, n: OPERATORS.norm_mean(x.mT, n, n, 0.0), r'must be contiguous|\[C\]'),
        (lambda x, w, n: OPERATORS.gated_norm_(x, x[:, 1:].clone(), n, n, 0.0), '`gate`'),
        (lambda x, w, n: OPERATORS.gated_mean_(x, x[:, 1:].clone(), x), '`b`'),
        (lambda x, w, n: OPERATORS.layer_norm(x, n, n[1:], 0.0), '`bias`'),
        (lambda x, w, n: OPERATORS.rms_norm(x, n[1:], 0.0), '`weight`'),
        (lambda x, w, n: OPERATORS.scaled_sum_(x, x, n, x, n), '`scale_a`'),
        (lambda x, w, n: OPERATORS.channel_gate(x, x[0, 0], None, 1, x[0, 0], None), r'`expand`'),
        (lambda x, w, n: OPERATORS.channel_gate(x, x[0, 0], n, 1, x[0, 0].mT.contiguous(), None), '`reduce_bias`'),
        (lambda x, w, n: OPERATORS.channel_gate(x, w[0, 0], None, 1, x[0, 0], None), r'\[hidden, C\]'),
        (lambda x, w, n: OPERATORS.channel_gate(x, x[0, 0], None, 1, x[0, 0].mT, None), 'contiguous'),
        (lambda x, w, n: OPERATORS.linear(x, w[:, 0], None, *[None] * 4, 0.0, 0, None), r'\[out, in\]'),
        (lambda x, w, n: OPERATORS.linear(x, n, None, *[None] * 4, 0.0, 0, None), r'\[out, in\]'),
        (lambda x, w, n: OPERATORS.linear(x, x[0, 0, :5].mT @ x[0, 0, :5], n[1:], *[None] * 4, 0.0, 0, None), '`bias`'),
        (lambda x, w, n: OPERATORS.linear(x, x[0, 0].mT @ x[0, 0], n, *[None] * 4, 0.0, 0, x[..., 1:]), '`residual`'),
        (
            lambda x, w, n: OPERATORS.linear(x.bfloat16(), x[0, 0].mT @ x[0, 0], None, *[None] * 4, 0.0, 0, None),
            'BFloat16',
        ),
        (lambda x, w, n: OPERATORS.batch_norm_(x, n, n, n, n[1:], 0.0, 0, None), '`norm`'),
    ],
)
def test_operators_stay_within_their_memory(call: Callable[..., object], message: str) -> None:
    with pytest.raises((ValueError, RuntimeError), match=message):
        call(torch.randn(1, 4, 6, 8), torch.randn(8, 1, 3, 3), torch.ones(8))


@pytest.mark.parametrize(
    'name, shape', [('x_proj', (8,)), ('dt_weight', (2,)), ('dt_bias', ()), ('A_logs', (3,)), ('Ds', (1,))]
)
def test_projected_scan_stays_within_its_memory(name: str, shape: tuple[int, ...]) -> None:
    shapes = {'x_proj': (8, 8), 'dt_weight': (8, 2), 'dt_bias': (8,), 'A_logs': (8, 3), 'Ds': (8,)}
    tensors = [torch.randn(size) for size in {**shapes, name: shape}.values()]
    with pytest.raises(ValueError, match='`A`' if name == 'A_logs' else f'`{name}`'):
        OPERATORS.projected_visual_scan(torch.randn(1, 4, 5, 8), *tensors, 1, [0] * 6)


def test_operators_pass_opcheck() -> None:
    x, n, weight = torch.randn(1, 4, 5, 8), torch.rand(8) + 1, torch.randn(8, 1, 3, 3)
    scale = torch.randn(1, 1, 1, 8)
    A_logs, per_channel, routes = torch.randn(4, 8, 3), torch.randn(4, 8), flatten(es2d_routes(2))
    for operator, args in (
        (OPERATORS.depthwise_conv, (x, weight, n, n, n, n, n, 1e-3, 1, 1, 2)),
        (OPERATORS.depthwise_conv, (x, torch.randn(8, 1, 4), n, *[None] * 4, 0.0, 0, 0, 2, True)),
        (OPERATORS.batch_norm_, (x, n, n, n, n, 1e-3, 1, x.clone())),
        (OPERATORS.channel_gate, (x, torch.randn(3, 8), torch.randn(3), 1, torch.randn(8, 3), n)),
        (OPERATORS.linear, (x, torch.randn(8, 8), n, n, n, n, n, 1e-3, 3, x.clone())),
        (OPERATORS.gated_norm_, (x, x.clone(), n, n, 1e-3)),
        (OPERATORS.gated_mean_, (x, x.clone(), x.clone())),
        (OPERATORS.layer_norm, (x, n, n, 1e-3)),
        (OPERATORS.rms_norm, (x, n, 1e-3)),
        (OPERATORS.map_mean, (x,)),
        (OPERATORS.norm_mean, (x, n, n, 1e-3)),
        (OPERATORS.scaled_sum_, (x, x.clone(), scale, x.clone(), scale)),
        (
            OPERATORS.projected_visual_scan,
            (x, torch.randn(4, 8, 8), torch.randn(4, 8, 2), per_channel, A_logs, per_channel, 2, routes),
        ),
        (OPERATORS.projected_visual_scan, (x, torch.randn(8, 8), torch.randn(8, 2), n, A_logs[0], n, 1, [0] * 6)),
    ):
        torch.library.opcheck(operator.default, args)


@pytest.mark.parametrize('capability', ['default', 'avx2', 'avx512'])
@pytest.mark.parametrize('threads', [1], indirect=True)
def test_other_instruction_sets(capability: str) -> None:
    if capability == 'avx512' and torch.backends.cpu.get_cpu_capability() != 'AVX512':
        pytest.skip('this processor has no AVX-512')
    tests = 'test_depthwise_conv or test_linear or test_norms_and_sums or test_projected_scan or ends_of_the_range'
    chosen = f'({tests} or agree_with_their_formulas) and 3 or huge_time_steps or by_any_factor or non_finite'
    files = [Path(__file__).with_name(f'test_{name}.py') for name in ('passes', 'training', 'selective_scan')]
    command = [sys.executable, '-m', 'pytest', '-q', '-p', 'no:xdist', *files, '-k', chosen]
    environment = {**os.environ, 'MMEVM_CPU_CAPABILITY': capability}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:]
