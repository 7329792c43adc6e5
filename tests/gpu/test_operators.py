"""Both operators on the GPU: every backend against the reference in float64, outputs and every gradient."""

from functools import partial

import pytest
import torch

from mmevm.ops import Route, es2d_routes
from mmevm.ops.autograd import CHUNK

from ..test_ops import samples
from ..test_ops.samples import map_inputs, sequence_inputs, to_float64
from .comparison import (
    Inputs,
    Results,
    assert_close,
    check,
    map_scan,
    on_device,
    output_gradients,
    results,
    sequence_scan,
)
from .device import DEVICE, REHEARSAL, available

pytestmark = pytest.mark.gpu

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
ES2D = map_scan(es2d_routes(2), 2)
SS2D = map_scan(samples.SS2D, 1)
PAIR = map_scan(samples.PAIR, 1)

# Around one chunk, around two, a prime number of tokens, more than any tile.
LENGTHS = [1, 2, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK - 1, 2 * CHUNK, 2 * CHUNK + 1, 131, 500]

# One sequence of few channels, which leaves most of a GPU idle unless its tokens are split among programs.
LONG = 1024 if REHEARSAL else 4096


def test_a_backend_besides_the_reference_serves_the_device() -> None:
    assert available(), f'neither compiled nor Triton kernels serve {DEVICE} tensors'


@pytest.mark.parametrize('L', LENGTHS)
@pytest.mark.parametrize('G', [1, 4])
def test_selective_scan_matches_reference(backend: str, L: int, G: int) -> None:
    check(sequence_scan, sequence_inputs(L=L, G=G, requires_grad=True), backend)


@pytest.mark.parametrize('dtype', DTYPES, ids=str)
def test_selective_scan_matches_reference_in_every_dtype(backend: str, dtype: torch.dtype) -> None:
    check(sequence_scan, sequence_inputs(L=70, dtype=dtype, requires_grad=True), backend)


@pytest.mark.parametrize('D, N', [(1, 1), (5, 2), (40, 17), (33, 64), (7, 256)])
def test_selective_scan_serves_any_width_and_state_size(backend: str, D: int, N: int) -> None:
    check(sequence_scan, sequence_inputs(D=D, N=N, L=67, requires_grad=True), backend)


@pytest.mark.parametrize('absent', [('Ds',), ('delta_bias',), ('Ds', 'delta_bias')], ids='+'.join)
def test_selective_scan_takes_absent_optional_inputs(backend: str, absent: tuple[str, ...]) -> None:
    inputs = sequence_inputs(requires_grad=True)
    check(sequence_scan, {k: v for k, v in inputs.items() if k not in absent}, backend)


@pytest.mark.parametrize('wanted', [('u',), ('A', 'delta_bias'), ('Bs',), ('delta', 'Ds')], ids='+'.join)
def test_selective_scan_gives_subsets_of_gradients(backend: str, wanted: tuple[str, ...]) -> None:
    inputs = sequence_inputs()
    for name in wanted:
        inputs[name].requires_grad_()
    assert {name for name in check(sequence_scan, inputs, backend) if name[0] == 'd'} == {f'd{w}' for w in wanted}


def test_selective_scan_reads_non_contiguous_slices(backend: str) -> None:
    inputs = on_device(sequence_inputs(L=80, requires_grad=True))
    views = {k: v[..., ::2] if k in ('u', 'delta', 'Bs', 'Cs') else v for k, v in inputs.items()}
    views['A'] = inputs['A'].t().contiguous().t()
    assert not views['u'].is_contiguous() and not views['A'].is_contiguous()
    exact = {k: v.detach().cpu().double().contiguous().requires_grad_() for k, v in views.items()}
    assert_close(results(sequence_scan, views, backend), results(sequence_scan, exact, 'reference'), torch.float32)


@pytest.mark.parametrize('L', [LONG - 1, LONG, LONG + CHUNK + 1])
def test_selective_scan_matches_reference_with_few_channels_and_many_tokens(backend: str, L: int) -> None:
    check(sequence_scan, sequence_inputs(B=1, D=8, L=L, N=4, requires_grad=True), backend)


def test_selective_scan_matches_reference_with_many_sequences(backend: str) -> None:
    check(sequence_scan, sequence_inputs(B=128, D=32, L=2 * CHUNK + 5, N=4, G=4, requires_grad=True), backend)


@pytest.fixture(scope='module')
def longest() -> tuple[Inputs, Results]:
    """A sequence of 65536 tokens, and what the float64 reference gives for it, computed once for all backends."""
    inputs = sequence_inputs(B=1, D=2, L=2048 if REHEARSAL else 65536, N=2)
    # Slow decay, so that the state sums thousands of tokens.
    inputs['A'], inputs['delta_bias'] = torch.full((2, 2), -0.01), torch.full((2,), -4.0)
    inputs = {k: v.requires_grad_() for k, v in inputs.items()}
    return inputs, results(sequence_scan, to_float64(inputs), 'reference')


@pytest.mark.xdist_group('longest')  # the processes would each compute the reference, which takes a minute
def test_selective_scan_keeps_precision_over_65536_tokens(backend: str, longest: tuple[Inputs, Results]) -> None:
    inputs, expected = longest
    assert_close(results(sequence_scan, on_device(inputs), backend), expected, torch.float32)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize('bias', [-10.0, 10.0])
def test_selective_scan_stays_finite_at_the_ends_of_half_precision(
    backend: str, dtype: torch.dtype, bias: float
) -> None:
    inputs = sequence_inputs(L=200, G=4, dtype=dtype)
    inputs['u'] = (inputs['u'].sign() * torch.logspace(-3, 3, 200)).to(dtype)
    inputs['delta_bias'] = torch.full_like(inputs['delta_bias'], bias)
    for name in ('Bs', 'Cs'):
        inputs[name] = inputs[name] / 16  # the outputs themselves must fit float16
    seeds = partial(output_gradients, scale=1 / 64)  # and so must the gradients
    check(sequence_scan, {k: v.requires_grad_() for k, v in inputs.items()}, backend, seeds)


@pytest.mark.parametrize('H, W', [(1, 1), (1, 9), (9, 1), (2, 2), (7, 8), (8, 7), (16, 24), (33, 31)])
def test_es2d_scan_matches_reference(backend: str, H: int, W: int) -> None:
    check(ES2D, map_inputs(H=H, W=W, requires_grad=True), backend)


@pytest.mark.parametrize('dtype', DTYPES, ids=str)
def test_es2d_scan_matches_reference_in_every_dtype(backend: str, dtype: torch.dtype) -> None:
    check(ES2D, map_inputs(H=15, W=17, dtype=dtype, requires_grad=True), backend)


@pytest.mark.parametrize('step', [3, 4, 5])
def test_es2d_scan_matches_reference_for_wider_steps(backend: str, step: int) -> None:
    check(map_scan(es2d_routes(step), step), map_inputs(H=11, W=9, requires_grad=True), backend)


@pytest.mark.parametrize('D, N, R', [(1, 1, 1), (5, 2, 2), (96, 16, 3), (40, 17, 7), (192, 16, 6), (16, 256, 1)])
def test_es2d_scan_serves_any_width_state_size_and_rank(backend: str, D: int, N: int, R: int) -> None:
    check(ES2D, map_inputs(D=D, N=N, R=R, requires_grad=True), backend)


@pytest.mark.parametrize('absent', [('Ds',), ('dt_bias',), ('Ds', 'dt_bias')], ids='+'.join)
def test_es2d_scan_takes_absent_optional_inputs(backend: str, absent: tuple[str, ...]) -> None:
    inputs = map_inputs(requires_grad=True)
    check(ES2D, {k: v for k, v in inputs.items() if k not in absent}, backend)


def test_es2d_scan_reads_channels_first_maps(backend: str) -> None:
    inputs = map_inputs(requires_grad=True)
    inputs['x'] = inputs['x'].detach().permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1).requires_grad_()
    assert not on_device(inputs)['x'].is_contiguous()
    check(ES2D, inputs, backend)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize('bias', [-10.0, 10.0])
def test_es2d_scan_stays_finite_at_the_ends_of_half_precision(backend: str, dtype: torch.dtype, bias: float) -> None:
    inputs = map_inputs(H=15, W=13, dtype=dtype)
    inputs['x'] = (inputs['x'].sign() * torch.logspace(-3, 3, 15)[:, None, None]).to(dtype)
    inputs['dt_bias'] = torch.full_like(inputs['dt_bias'], bias)
    inputs['x_dbl'] = inputs['x_dbl'] / 16
    seeds = partial(output_gradients, scale=1 / 64)
    check(ES2D, {k: v.requires_grad_() for k, v in inputs.items()}, backend, seeds)


def test_scans_take_data_of_mixed_dtypes(backend: str) -> None:
    sequence = sequence_inputs(L=70, dtype=torch.float16)
    sequence |= {'Bs': sequence['Bs'].float(), 'delta': sequence['delta'].bfloat16()}
    image = map_inputs(dtype=torch.bfloat16)
    image['x_dbl'] = image['x_dbl'].float()
    for scan, inputs in ((sequence_scan, sequence), (ES2D, image)):
        inputs = {k: v.requires_grad_() for k, v in inputs.items()}
        expected = results(scan, to_float64(inputs), 'reference')
        # The tolerance of the coarsest of them.
        assert_close(results(scan, on_device(inputs), backend), expected, torch.bfloat16)


@pytest.mark.parametrize('H, W', [(64, LONG // 16), (1, 2 * LONG)])
def test_es2d_scan_matches_reference_with_few_channels_and_many_cells(backend: str, H: int, W: int) -> None:
    check(ES2D, map_inputs(B=1, H=H, W=W, D=4, N=4, R=1, requires_grad=True), backend)


def test_es2d_scan_matches_reference_with_many_maps(backend: str) -> None:
    check(ES2D, map_inputs(B=128, H=11, W=13, D=16, N=4, R=2, requires_grad=True), backend)


@pytest.mark.parametrize('H, W', [(1, 1), (1, 9), (9, 1), (7, 7), (14, 15), (33, 31)])
@pytest.mark.parametrize('N', [1, 16])
def test_ss2d_scan_matches_reference(backend: str, H: int, W: int, N: int) -> None:
    check(SS2D, map_inputs(H=H, W=W, D=40, N=N, P=4, requires_grad=True), backend)


@pytest.mark.parametrize('dtype', DTYPES, ids=str)
@pytest.mark.parametrize('D, N, R', [(192, 16, 6), (96, 1, 6), (384, 1, 24)])
def test_ss2d_scan_matches_reference_at_vmambas_widths(
    backend: str, dtype: torch.dtype, D: int, N: int, R: int
) -> None:
    check(SS2D, map_inputs(B=1, H=6, W=7, D=D, N=N, R=R, P=4, dtype=dtype, requires_grad=True), backend)


def test_ss2d_scan_matches_reference_with_few_channels_and_many_cells(backend: str) -> None:
    check(SS2D, map_inputs(B=1, H=32, W=LONG // 32, D=4, N=4, R=1, P=4, requires_grad=True), backend)


@pytest.mark.parametrize('L', LENGTHS)
def test_visual_scan_serves_a_forward_and_backward_pair(backend: str, L: int) -> None:
    check(PAIR, map_inputs(H=1, W=L, P=2, K=2, requires_grad=True), backend)


@pytest.mark.parametrize('reverse', [False, True])
@pytest.mark.parametrize('dtype', DTYPES, ids=str)
def test_visual_scan_serves_each_direction_of_vim(backend: str, dtype: torch.dtype, reverse: bool) -> None:
    scan = map_scan([Route(0, 0, column_major=False, reverse=reverse, parameters=0, projection=0)], 1)
    check(scan, map_inputs(H=1, W=197, D=384, R=12, K=1, dtype=dtype, requires_grad=True), backend)


def test_visual_scan_leaves_unvisited_cells_at_zero(backend: str) -> None:
    got = check(map_scan(es2d_routes(2)[:3], 2), map_inputs(requires_grad=True), backend)
    assert got['out0'][:, 1::2, 1::2].eq(0).all() and got['dx'][:, 1::2, 1::2].eq(0).all()


def test_scans_return_empty_for_an_empty_batch(backend: str) -> None:
    sequence = results(sequence_scan, on_device(sequence_inputs(B=0, requires_grad=True)), backend)
    assert sequence['out0'].shape == (0, 24, 33) and sequence['out1'].shape == (0, 24, 16)
    image = results(ES2D, on_device(map_inputs(B=0, requires_grad=True)), backend)
    assert image['out0'].shape == (0, 9, 7, 20)
    for name in ('dA', 'dDs'):
        assert sequence[name].eq(0).all() and image[name].eq(0).all()


@pytest.mark.parametrize('dtype', DTYPES, ids=str)
@pytest.mark.parametrize('L', [CHUNK - 1, CHUNK, CHUNK + 1, LONG])
def test_backends_agree_with_each_other(dtype: torch.dtype, L: int) -> None:
    names = available()
    if len(names) < 2:
        pytest.skip(f'only {names or "the reference"} here')
    sequence = on_device(sequence_inputs(B=1, D=40, L=L, G=4, dtype=dtype, requires_grad=True))
    image = on_device(map_inputs(B=1, H=8, W=L // 2, D=40, dtype=dtype, requires_grad=True))
    for scan, inputs in ((sequence_scan, sequence), (ES2D, image)):
        first, second = (results(scan, inputs, name) for name in names[:2])
        assert_close(first, second, dtype)
