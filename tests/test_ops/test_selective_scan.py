"""The one-dimensional selective scan: every backend against the reference in float64."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mmevm.ops import selective_scan

from .compare import compare_sequence, run_sequence
from .samples import TOLERANCE, relative_error, sequence_inputs, to_float64

pytestmark = pytest.mark.usefixtures('extension')

LENGTHS = [1, 2, 31, 32, 33, 63, 64, 65, 129, 500]


@pytest.mark.parametrize('L', LENGTHS)
@pytest.mark.parametrize('G', [1, 4])
def test_selective_scan_matches_reference(L: int, G: int) -> None:
    compare_sequence(sequence_inputs(L=L, G=G, requires_grad=True), 'compiled')


@pytest.mark.parametrize('dtype', [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_selective_scan_matches_reference_in_every_dtype(dtype: torch.dtype) -> None:
    compare_sequence(sequence_inputs(L=70, dtype=dtype, requires_grad=True), 'compiled')


@pytest.mark.parametrize('N', [1, 2, 3, 8, 17, 256])
@pytest.mark.parametrize('D', [1, 5, 40])
def test_selective_scan_serves_any_state_size_and_width(N: int, D: int) -> None:
    compare_sequence(sequence_inputs(D=D, N=N, L=67, requires_grad=True), 'compiled')


@pytest.mark.parametrize('absent', [('Ds',), ('delta_bias',), ('Ds', 'delta_bias')], ids='+'.join)
def test_selective_scan_takes_absent_optional_inputs(absent: tuple[str, ...]) -> None:
    inputs = sequence_inputs(requires_grad=True)
    compare_sequence({k: v for k, v in inputs.items() if k not in absent}, 'compiled')


@pytest.mark.parametrize('wanted', [('u',), ('A', 'delta_bias'), ('Bs',), ('delta', 'Ds')], ids='+'.join)
def test_selective_scan_gives_subsets_of_gradients(wanted: tuple[str, ...]) -> None:
    inputs = sequence_inputs()
    for name in wanted:
        inputs[name].requires_grad_()
    compare_sequence(inputs, 'compiled')


def test_selective_scan_reads_non_contiguous_slices() -> None:
    inputs = sequence_inputs(L=40)
    for name in ('u', 'delta', 'Bs', 'Cs'):
        wide = torch.randn(*inputs[name].shape[:-1], 80)
        wide[..., ::2] = inputs[name]
        inputs[name] = wide[..., ::2]
    inputs['A'] = inputs['A'].t().contiguous().t()
    assert not inputs['u'].is_contiguous()
    compare_sequence(inputs, 'compiled')


def test_selective_scan_without_softplus_takes_positive_and_negative_steps() -> None:
    inputs = sequence_inputs(L=20, requires_grad=True)
    with torch.no_grad():
        inputs['delta'].mul_(0.1), inputs['delta_bias'].zero_()
    got = selective_scan(**inputs, backend='compiled')
    expected = selective_scan(**to_float64(inputs), backend='reference')
    assert relative_error(got, expected) < TOLERANCE[torch.float32]


def test_selective_scan_gates_with_z() -> None:
    inputs, z = sequence_inputs(requires_grad=True), torch.randn(2, 24, 33)
    gated, plain = (selective_scan(**inputs, z=gate, delta_softplus=True, backend='compiled') for gate in (z, None))
    torch.testing.assert_close(gated, plain * F.silu(z))
    compare_sequence(inputs, 'compiled', z=z)


def test_selective_scan_takes_ungrouped_matrices() -> None:
    inputs = sequence_inputs()
    expected, _ = run_sequence(inputs, 'reference')
    flat = inputs | {k: inputs[k].squeeze(1) for k in ('Bs', 'Cs')}
    assert relative_error(run_sequence(flat, 'compiled')[0], expected) < TOLERANCE[torch.float32]


@pytest.mark.parametrize('backend', ['reference', 'compiled'])
def test_selective_scan_gradcheck(backend: str) -> None:
    inputs = sequence_inputs(B=1, D=3, L=5, N=2, dtype=torch.float64, requires_grad=True)
    names = list(inputs)

    def scan(*tensors: Tensor) -> tuple[Tensor, Tensor]:
        return run_sequence(dict(zip(names, tensors, strict=True)), backend)

    assert torch.autograd.gradcheck(scan, tuple(inputs.values()))


@pytest.mark.parametrize('kwargs', [{}, {'dtype': torch.bfloat16}, {'G': 4, 'L': 129}, {'B': 0}], ids=str)
def test_selective_scan_opcheck(kwargs: dict) -> None:
    i = sequence_inputs(requires_grad=True, **kwargs)
    for Ds, bias in ((i['Ds'], i['delta_bias']), (None, None)):
        args = (i['u'], i['delta'], i['A'], i['Bs'], i['Cs'], Ds, bias, True, True)
        torch.library.opcheck(torch.ops.mmevm.selective_scan.default, args)


@pytest.mark.parametrize('backend', ['reference', 'compiled'])
def test_selective_scan_returns_empty_for_an_empty_batch(backend: str) -> None:
    inputs = sequence_inputs(B=0, requires_grad=True)
    y, last_state = run_sequence(inputs, backend)
    assert y.shape == (0, 24, 33) and last_state.shape == (0, 24, 16)
    y.sum().backward()
    assert inputs['u'].grad.shape == (0, 24, 33)


def test_selective_scan_keeps_precision_over_65536_tokens() -> None:
    inputs = sequence_inputs(B=1, D=1, L=65536, N=1)
    # Slow decay, so that the state sums thousands of tokens.
    inputs['A'], inputs['delta_bias'] = torch.full((1, 1), -0.01), torch.full((1,), -4.0)
    compare_sequence(inputs, 'compiled')


def test_selective_scan_survives_huge_time_steps() -> None:
    inputs = sequence_inputs(L=100, requires_grad=True)
    with torch.no_grad():
        inputs['delta'].copy_(torch.rand_like(inputs['delta']) * 1e4)
    compare_sequence(inputs, 'compiled')


@pytest.mark.parametrize('largest', [1.0, 87.0, 88.0, 300.0])
@pytest.mark.parametrize('sign', [-1, 1])
def test_selective_scan_decays_by_any_factor(largest: float, sign: int) -> None:
    # The first token is all input, the second all decay: y = N exp(delta A), up to infinity, and down to the smallest
    # normal number, below which it may be 0.
    D, N = 40, 5
    delta = torch.stack([torch.ones(D), torch.linspace(0, largest, D)], 1)[None]
    u, ones = torch.tensor([1.0, 0.0]).expand(1, D, 2).contiguous(), torch.ones(1, 1, N, 2)
    y = selective_scan(u, delta, torch.full((D, N), float(sign)), ones, ones, backend='compiled')
    expected = (N * torch.exp(sign * delta[0, :, 1].double())).float()
    assert torch.allclose(y[0, :, 1], expected, rtol=2e-5, atol=N * torch.finfo(torch.float32).tiny)


@pytest.mark.parametrize('name', ['u', 'delta', 'Bs', 'A'])
@pytest.mark.parametrize('value', [float('nan'), float('inf'), float('-inf')])
def test_selective_scan_contains_non_finite_inputs(name: str, value: float) -> None:
    inputs = sequence_inputs(requires_grad=True)
    with torch.no_grad():
        inputs[name].view(-1)[5] = value
    y, _ = run_sequence(inputs, 'compiled')
    expected, _ = run_sequence(inputs, 'reference')
    y.sum().backward()
    finite = expected.isfinite()
    assert relative_error(y[finite], expected[finite]) < TOLERANCE[torch.float32]
    assert torch.equal(y.isnan(), expected.isnan())


def test_selective_scan_shares_nothing_between_threads() -> None:
    inputs = sequence_inputs(B=3, D=200, L=70, requires_grad=True)
    results = []
    threads = torch.get_num_threads()
    try:
        for n in (1, 2, 7):
            torch.set_num_threads(n)
            y, _ = run_sequence(inputs, 'compiled')
            results.append([y, *torch.autograd.grad(y.sum(), list(inputs.values()))])
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            assert relative_error(b, a) < 1e-5


BAD = {
    'short delta': ({'delta': torch.zeros(2, 24, 32)}, ValueError, r'`delta` .*= \[2, 24, 33\], got \[2, 24, 32\]'),
    'flat u': ({'u': torch.zeros(24, 33)}, ValueError, r'`u` must have shape \[B, D, L\], got \[24, 33\]'),
    'complex A': ({'A': torch.zeros(24, 16, dtype=torch.complex64)}, TypeError, r'`A` .*complex'),
    'half A': ({'A': torch.zeros(24, 16, dtype=torch.half)}, TypeError, r'`A` must be torch.float32'),
    'integer u': ({'u': torch.zeros(2, 24, 33, dtype=torch.long)}, TypeError, r'`u` must be float16'),
    'array u': ({'u': np.zeros((2, 24, 33))}, TypeError, '`u` must be a tensor, got ndarray; convert it'),
    'list Ds': ({'Ds': [1.0] * 24}, TypeError, '`Ds` must be a tensor, got list'),
    'list z': ({'z': [1.0]}, TypeError, '`z` must be a tensor, got list'),
    'no delta': ({'delta': None}, TypeError, '`delta` must be a tensor, got NoneType'),
    'too many states': ({'A': torch.zeros(24, 257)}, ValueError, r'1 to 256 states, got 257'),
    'no state': ({'A': torch.zeros(24, 0)}, ValueError, r'1 to 256 states, got 0'),
    'uneven groups': ({k: torch.zeros(2, 5, 16, 33) for k in ('Bs', 'Cs')}, ValueError, r'divides D = 24, got 5'),
    'other device': ({'Cs': torch.zeros(2, 1, 16, 33, device='meta')}, ValueError, r'`Cs` must be on cpu'),
    'wrong Ds': ({'Ds': torch.zeros(23)}, ValueError, r'`Ds` must have shape \[D\] = \[24\], got \[23\]'),
    'wrong z': ({'z': torch.zeros(2, 24, 3)}, ValueError, r'`z` must have shape'),
    'backend': ({'backend': 'cuda'}, ValueError, r"`backend` must be one of .*got 'cuda'"),
}


@pytest.mark.parametrize('change, error, message', BAD.values(), ids=BAD.keys())
def test_selective_scan_rejects(change: dict, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        selective_scan(**sequence_inputs() | change)


def test_selective_scan_rejects_empty_sequences() -> None:
    with pytest.raises(ValueError, match='at least one channel and one token'):
        selective_scan(**sequence_inputs(L=0))


def test_selective_scan_operator_repeats_the_checks() -> None:
    i = sequence_inputs()
    with pytest.raises(ValueError, match=r'`delta` must have shape \[B, D, L\] = \[2, 24, 33\], got \[2, 24, 32\]'):
        torch.ops.mmevm.selective_scan(i['u'], i['delta'][..., 1:], i['A'], i['Bs'], i['Cs'], None, None, True, False)


def test_selective_scan_compiles_without_graph_breaks() -> None:
    inputs = sequence_inputs(requires_grad=True)
    compiled = torch.compile(lambda **i: run_sequence(i, 'auto'), fullgraph=True, backend='aot_eager')
    for got, expected in zip(compiled(**inputs), run_sequence(inputs, 'compiled'), strict=True):
        torch.testing.assert_close(got, expected)


def test_selective_scan_exports() -> None:
    class Scan(torch.nn.Module):
        def forward(self, u: Tensor, delta: Tensor, A: Tensor, Bs: Tensor, Cs: Tensor) -> Tensor:
            return selective_scan(u, delta, A, Bs, Cs, delta_softplus=True)

    i = sequence_inputs()
    args = tuple(i[k] for k in ('u', 'delta', 'A', 'Bs', 'Cs'))
    program = torch.export.export(Scan(), args)
    assert 'mmevm.selective_scan' in program.graph_module.code
    torch.testing.assert_close(program.module()(*args), Scan()(*args))


def test_selective_scan_keeps_the_state_in_float32_under_autocast() -> None:
    inputs = sequence_inputs(L=200)
    exact, _ = run_sequence(to_float64(inputs), 'reference')
    mixed = inputs | {k: inputs[k].bfloat16() for k in ('u', 'Bs', 'Cs')}
    with torch.autocast('cpu', torch.bfloat16):
        y, last_state = run_sequence(mixed, 'compiled')
    assert y.dtype == torch.bfloat16 and last_state.dtype == torch.float32
    assert relative_error(y, exact) < TOLERANCE[torch.bfloat16]


@pytest.mark.parametrize('backend', ['reference', 'compiled'])
@pytest.mark.parametrize('L', [8, 128, 1024])
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_selective_scan_gates_within_the_tolerances_of_mamba_ssm(backend: str, L: int, dtype: torch.dtype) -> None:
    """The gate is computed in float32; tolerances and shapes are those of mamba_ssm's own test."""
    rtol, atol = {torch.float32: (6e-4, 2e-3), torch.bfloat16: (3e-2, 5e-2), torch.float16: (3e-3, 5e-3)}[dtype]
    inputs = sequence_inputs(D=4, L=L, N=8, dtype=dtype, requires_grad=True)
    with torch.no_grad():
        inputs['A'].copy_(-0.5 * torch.rand(4, 8))
        inputs['delta_bias'].copy_(0.5 * torch.rand(4))
        inputs['delta'].copy_(0.5 * torch.rand(2, 4, L))
    z = torch.randn(2, 4, L).to(dtype).requires_grad_()
    exact, exact_z = to_float64(inputs), z.detach().double().requires_grad_()
    y = selective_scan(**inputs, z=z, delta_softplus=True, backend=backend)
    expected = selective_scan(**exact, z=exact_z, delta_softplus=True, backend='reference')
    assert y.dtype == dtype
    torch.testing.assert_close(y.double(), expected, rtol=rtol, atol=atol)
    seed = torch.randn_like(y)
    y.backward(seed)
    expected.backward(seed.double())
    tolerances = {'A': (1e-3, 5e-3), 'delta_bias': (1e-3, 1e-3), 'Ds': (1e-3, 1e-3)}
    for name, tensor in (inputs | {'z': z}).items():
        r, a = tolerances.get(name, (2 * rtol, 2 * atol))
        true = (exact | {'z': exact_z})[name].grad
        torch.testing.assert_close(tensor.grad.double(), true, rtol=r, atol=a, msg=lambda m, n=name: f'{n}: {m}')
