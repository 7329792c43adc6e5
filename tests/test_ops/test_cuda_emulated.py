"""The source of the CUDA kernels, run on the CPU, against the reference in float64.

The GPU tests run the kernels themselves; these find errors of arithmetic, indices and missing barriers without one.
"""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from mmevm.ops import Route, backends, es2d_routes, visual_scan
from mmevm.ops.routes import flatten
from tests.emulation.build import load_emulation

from .compare import compare_map, compare_sequence, run_sequence
from .cuda_resources import CARDS
from .samples import PAIR, SHARED, SS2D, map_inputs, relative_error, sequence_inputs

MANY, FEW = 10**5, 1
"""Multiprocessors that make the launchers cut every sequence into segments, or none."""
SHARED_BYTES = 227 * 1024

IN_ORDER, REVERSED = 0, 1
"""How threads take turns; other numbers are seeds of a random order."""


@pytest.fixture(scope='module')
def emulation() -> Iterator[None]:
    """Makes backend 'compiled' the emulated kernels."""
    load_emulation()
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(backends._NAMESPACES, 'compiled', 'mmevm_emulated')
        patch.setattr(backends, '_compiled_problem', lambda device, dtype: None)
        patch.setitem(backends._PROBLEMS, 'compiled', lambda device, dtype: None)
        yield


@pytest.fixture(params=[(FEW, IN_ORDER), (MANY, REVERSED), (MANY, 2)], ids=['whole', 'segments', 'segments-random'])
def machine(request: pytest.FixtureRequest, emulation: None) -> None:
    """Runs a test on whole sequences and on segments, with the threads of a block in several orders."""
    multiprocessors, order = request.param
    torch.ops.mmevm_emulated.set_machine(multiprocessors, SHARED_BYTES, order)


def _sequence(**kwargs: object) -> dict[str, Tensor]:
    """Three chunks, the last of five tokens."""
    return sequence_inputs(**{'B': 2, 'D': 8, 'L': 69, 'N': 4, 'requires_grad': True} | kwargs)


def _map(**kwargs: object) -> dict[str, Tensor]:
    """Three chunks in steps of two, the last of six tokens; some lie past the lower edge."""
    return map_inputs(**{'B': 2, 'H': 19, 'W': 14, 'D': 6, 'N': 4, 'requires_grad': True} | kwargs)


@pytest.mark.usefixtures('machine')
@pytest.mark.parametrize('L', [1, 15, 16, 17, 31, 32, 33, 65, 129])
def test_selective_scan_matches_reference(L: int) -> None:
    compare_sequence(_sequence(L=L), 'compiled')


@pytest.mark.usefixtures('machine')
@pytest.mark.parametrize('D, N, G', [(1, 1, 1), (70, 2, 2), (40, 16, 1), (5, 3, 1), (6, 17, 3), (2, 70, 1)])
def test_selective_scan_serves_any_width_state_size_and_group(D: int, N: int, G: int) -> None:
    compare_sequence(_sequence(D=D, N=N, G=G), 'compiled')


@pytest.mark.usefixtures('machine')
@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16], ids=str)
def test_scans_match_reference_in_half_precision(dtype: torch.dtype) -> None:
    compare_sequence(_sequence(dtype=dtype), 'compiled')
    compare_map(_map(dtype=dtype), 'compiled', es2d_routes(), 2)
    compare_map(_map(dtype=dtype, P=4), 'compiled', SS2D, 1)


@pytest.mark.usefixtures('machine')
@pytest.mark.parametrize('kwargs', [{'delta_softplus': False}, {'return_last_state': True}], ids=str)
def test_selective_scan_takes_options(kwargs: dict) -> None:
    inputs = _sequence(B=1)
    if kwargs.get('delta_softplus') is False:
        inputs['delta'] = inputs['delta'].detach().abs().requires_grad_()
        inputs['delta_bias'] = inputs['delta_bias'].detach().abs().requires_grad_()
    compare_sequence(inputs, 'compiled', **kwargs)


@pytest.mark.usefixtures('machine')
def test_selective_scan_takes_absent_optional_inputs() -> None:
    inputs = {name: tensor for name, tensor in _sequence(B=1).items() if name not in ('Ds', 'delta_bias')}
    compare_sequence(inputs, 'compiled')


@pytest.mark.usefixtures('machine')
@pytest.mark.parametrize('H, W', [(1, 1), (1, 9), (2, 2), (7, 30), (33, 31)])
def test_es2d_scan_matches_reference(H: int, W: int) -> None:
    compare_map(_map(H=H, W=W), 'compiled', es2d_routes(), 2)


@pytest.mark.usefixtures('machine')
@pytest.mark.parametrize('D, N, R', [(1, 1, 1), (5, 2, 2), (40, 16, 7), (6, 19, 3), (2, 70, 1), (150, 8, 6)])
def test_es2d_scan_serves_any_width_state_size_and_rank(D: int, N: int, R: int) -> None:
    compare_map(_map(B=1, D=D, N=N, R=R), 'compiled', es2d_routes(), 2)


@pytest.mark.usefixtures('machine')
@pytest.mark.parametrize(
    'routes, step, P', [(SS2D, 1, 4), (PAIR, 1, 2), (SHARED, 2, 1), (es2d_routes(3), 3, 1), (es2d_routes()[:3], 2, 1)]
)
def test_visual_scan_matches_reference_on_any_routes(routes: list[Route], step: int, P: int) -> None:
    compare_map(_map(H=13, W=12, P=P), 'compiled', routes, step)
    compare_map(_map(B=1, H=9, W=11, P=P, N=18), 'compiled', routes, step)


@pytest.mark.usefixtures('machine')
def test_es2d_scan_takes_absent_optional_inputs_and_channels_first_maps() -> None:
    inputs = {name: tensor for name, tensor in _map().items() if name not in ('Ds', 'dt_bias')}
    inputs['x'] = inputs['x'].detach().permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1).requires_grad_()
    compare_map(inputs, 'compiled', es2d_routes(), 2)


@pytest.mark.usefixtures('machine')
def test_scans_stay_finite_for_extreme_half_precision_inputs() -> None:
    for bias in (-10, 10):
        inputs = _sequence(dtype=torch.bfloat16)
        with torch.no_grad():
            inputs['u'].mul_(1000 / inputs['u'].abs().max())
            inputs['delta_bias'].fill_(bias)
        y, last_state = run_sequence(inputs, 'compiled')
        grads = torch.autograd.grad([y.sum(), last_state.sum()], list(inputs.values()))
        assert all(tensor.isfinite().all() for tensor in (y, last_state, *grads))


@pytest.mark.usefixtures('emulation')
def test_segments_and_saved_states_are_those_of_the_whole_scan() -> None:
    """The states that a segmented scan saves are the whole scan's, which the CPU kernels save, too."""
    i = _map(requires_grad=False)
    arguments = (i['x'], i['x_dbl'], i['dt_weight'], i['dt_bias'], i['A'], i['Ds'], 2, flatten(es2d_routes()), True)
    expected = torch.ops.mmevm.visual_scan(*arguments)
    for multiprocessors in (FEW, MANY):
        torch.ops.mmevm_emulated.set_machine(multiprocessors, SHARED_BYTES, IN_ORDER)
        got = torch.ops.mmevm_emulated.visual_scan(*arguments)
        assert all(relative_error(g, e) < 1e-5 for g, e in zip(got, expected, strict=True))


@pytest.mark.usefixtures('emulation')
def test_scans_repeat_bit_for_bit() -> None:
    def run(order: int) -> list[Tensor]:
        torch.ops.mmevm_emulated.set_machine(MANY, SHARED_BYTES, order)
        inputs = _map(H=9, W=11, D=70, P=4)
        y = visual_scan(**inputs, routes=SS2D, step=1, backend='compiled')
        return [y, *torch.autograd.grad(y.square().sum(), list(inputs.values()))]

    first = run(IN_ORDER)
    for order in (REVERSED, 2, 3):
        assert all(torch.equal(a, b) for a, b in zip(first, run(order), strict=True))


@pytest.mark.usefixtures('emulation')
def test_small_shared_memory_splits_channels_or_is_refused() -> None:
    inputs = _map(D=64, R=8)
    torch.ops.mmevm_emulated.set_machine(FEW, 48 * 1024, IN_ORDER)
    compare_map(inputs, 'compiled', es2d_routes(), 2)
    torch.ops.mmevm_emulated.set_machine(FEW, 2 * 1024, IN_ORDER)
    message = 'N = 4 states and R = 8 low-rank values need .* bytes of shared memory, this GPU has 2048'
    with pytest.raises(ValueError, match=message):
        visual_scan(**inputs, routes=es2d_routes(), step=2, backend='compiled')


@pytest.mark.usefixtures('emulation')
@pytest.mark.parametrize('card', ['T4', 'RTX 4090'])
def test_scans_match_reference_however_a_card_splits_them(card: str) -> None:
    torch.ops.mmevm_emulated.set_machine(FEW, SHARED_BYTES, 2)
    torch.ops.mmevm_emulated.set_limits([FEW, *CARDS[card][2:]])
    compare_map(_map(B=1, H=9, W=7, D=150, N=16, R=6), 'compiled', es2d_routes(), 2)
    compare_sequence(_sequence(B=1, D=150, N=16, L=40), 'compiled')


@pytest.mark.usefixtures('machine')
@pytest.mark.parametrize('name', ['x', 'x_dbl'])
@pytest.mark.parametrize('value', [float('nan'), float('inf')])
def test_es2d_scan_contains_non_finite_inputs(name: str, value: float) -> None:
    inputs = _map(B=1, D=5, N=3)
    with torch.no_grad():
        inputs[name].view(-1)[7 * inputs[name].shape[-1] + 2] = value
    results = []
    for backend in ('compiled', 'reference'):
        y = visual_scan(**inputs, routes=es2d_routes(), step=2, backend=backend)
        results.append([y, *torch.autograd.grad(y, [inputs['x'], inputs['x_dbl']], torch.ones_like(y))])
    for got, expected in zip(*results, strict=True):
        finite = expected.isfinite()
        assert finite.any() and torch.equal(got.isfinite(), finite)
        assert relative_error(got[finite], expected[finite]) < 2e-5


@pytest.mark.usefixtures('emulation')
def test_scans_return_empty_for_an_empty_batch() -> None:
    torch.ops.mmevm_emulated.set_machine(MANY, SHARED_BYTES, IN_ORDER)
    inputs = _map(B=0)
    visual_scan(**inputs, routes=es2d_routes(), step=2, backend='compiled').sum().backward()
    assert inputs['A'].grad.eq(0).all() and inputs['x'].grad.shape == inputs['x'].shape
    sequence = _sequence(B=0)
    run_sequence(sequence, 'compiled')[0].sum().backward()
    assert sequence['A'].grad.eq(0).all() and sequence['Bs'].grad.shape == sequence['Bs'].shape


@pytest.mark.usefixtures('emulation')
@pytest.mark.parametrize('dtype, name', [(torch.float64, 'Double'), (torch.float8_e4m3fn, 'Float8_e4m3fn')], ids=str)
def test_scans_refuse_data_that_has_no_kernels(dtype: torch.dtype, name: str) -> None:
    inputs = _map(dtype=dtype, requires_grad=False)
    with pytest.raises(ValueError, match=f"float16, bfloat16 and float32 data, got {name}; use backend='triton'"):
        visual_scan(**inputs, routes=es2d_routes(), step=2, backend='compiled')


@pytest.mark.usefixtures('emulation')
def test_scans_pass_opcheck() -> None:
    torch.ops.mmevm_emulated.set_machine(MANY, SHARED_BYTES, IN_ORDER)
    i = _map(P=4)
    for routes, step in ((es2d_routes(), 2), (SS2D, 1)):
        arguments = (i['x'], i['x_dbl'], i['dt_weight'], i['dt_bias'], i['A'], i['Ds'], step, flatten(routes), True)
        torch.library.opcheck(torch.ops.mmevm_emulated.visual_scan.default, arguments)
    s = _sequence()
    arguments = (s['u'], s['delta'], s['A'], s['Bs'], s['Cs'], s['Ds'], s['delta_bias'], True, True)
    torch.library.opcheck(torch.ops.mmevm_emulated.selective_scan.default, arguments)


@pytest.mark.usefixtures('emulation')
@pytest.mark.parametrize(
    'fault, message',
    [
        ('read', 'a vector of 16 bytes lies at an address that it does not divide'),
        ('write', 'a vector of 16 bytes lies at an address that it does not divide'),
        ('grid', 'a grid has 1 to 2147483647 blocks, got 2147483648'),
        ('no blocks', 'a grid has 1 to 2147483647 blocks, got 0'),
        ('block', 'a block has up to 1024 threads, got 1056'),
        ('shared memory', 'a block has up to 4096 bytes of shared memory, got 4100'),
        ('registers', 'a block has 65536 registers, which 512 threads of 255 exceed'),
        ('stream', 'a kernel is started on a stream that is not the current one'),
    ],
)
def test_emulation_refuses_what_a_gpu_refuses(fault: str, message: str) -> None:
    torch.ops.mmevm_emulated.set_machine(FEW, 4096, IN_ORDER)
    torch.ops.mmevm_emulated.run_faulty('none')
    with pytest.raises(RuntimeError, match=message):
        torch.ops.mmevm_emulated.run_faulty(fault)
    torch.ops.mmevm_emulated.run_faulty('none')


@pytest.mark.usefixtures('emulation')
@pytest.mark.parametrize('what', ['warps', 'overwritten', 'lanes'])
def test_emulation_finds_missing_barriers(what: str) -> None:
    expected = torch.arange(96.0)
    expected = expected.view(48, 2).flip(1).flatten() if what == 'lanes' else expected.roll(-32)

    def right(order: int, barrier: bool) -> bool:
        torch.ops.mmevm_emulated.set_machine(FEW, SHARED_BYTES, order)
        return torch.equal(torch.ops.mmevm_emulated.turned(torch.empty(0), what, barrier), expected)

    orders = range(2, 12)
    assert all(right(order, True) for order in (IN_ORDER, REVERSED, *orders))
    found = [not right(order, False) for order in orders]
    assert sum(found) > len(found) // 2
    assert found == [not right(order, False) for order in orders]  # a seed repeats what it found
