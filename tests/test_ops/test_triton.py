"""The Triton kernels against the reference in float64: on the GPU, or in Triton's interpreter where there is none."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from mmevm.ops import es2d_routes, visual_scan
from mmevm.ops.routes import flatten

from .compare import compare_map, compare_sequence, run_sequence
from .samples import PAIR, SHARED, SS2D, map_inputs, relative_error, sequence_inputs

pytestmark = pytest.mark.usefixtures('triton_backend')

DEVICE = 'cuda' if torch.cuda.is_available() else 'cpu'


def _sequence(**kwargs: object) -> dict[str, Tensor]:
    return _on_device(sequence_inputs(**{'B': 1, 'D': 8, 'L': 33, 'N': 4, 'requires_grad': True} | kwargs))


def _map(**kwargs: object) -> dict[str, Tensor]:
    return _on_device(map_inputs(**{'B': 1, 'D': 6, 'N': 4, 'requires_grad': True} | kwargs))


def _on_device(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k: v.detach().to(DEVICE).requires_grad_(v.requires_grad) for k, v in inputs.items()}


@pytest.fixture
def segments(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Cuts routes into as many segments as they have pairs of chunks; lists how many each pass had."""
    from mmevm.ops.triton import launch

    counts = []
    count_segments = launch.count_segments

    def record(scan: launch.Scan) -> int:
        counts.append(count_segments(scan))
        return counts[-1]

    monkeypatch.setattr(launch, 'programs_wanted', lambda device: 10**6)
    monkeypatch.setattr(launch, 'count_segments', record)
    return counts


@pytest.fixture
def deterministic() -> Iterator[None]:
    """Asks for deterministic algorithms; torch then fills fresh memory with NaN, too."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize('L', [1, 2, 15, 16, 17, 31, 32, 33, 63, 64, 65, 129])
def test_selective_scan_matches_reference(L: int) -> None:
    compare_sequence(_sequence(L=L), 'triton')


@pytest.mark.parametrize('B, G, L', [(1, 4, 1), (2, 4, 33), (3, 2, 40)])
def test_selective_scan_matches_reference_for_batches_of_groups(B: int, G: int, L: int) -> None:
    compare_sequence(_sequence(B=B, G=G, L=L), 'triton')


@pytest.mark.parametrize('dtype', [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_selective_scan_matches_reference_in_every_dtype(dtype: torch.dtype) -> None:
    compare_sequence(_sequence(L=70, N=16, dtype=dtype), 'triton')


@pytest.mark.parametrize('D, N', [(1, 1), (70, 1), (5, 2), (20, 16), (3, 17), (2, 256)])
def test_selective_scan_serves_any_width_and_state_size(D: int, N: int) -> None:
    compare_sequence(_sequence(D=D, N=N, L=37), 'triton')


@pytest.mark.parametrize('absent', [('Ds',), ('delta_bias',), ('Ds', 'delta_bias')], ids='+'.join)
def test_selective_scan_takes_absent_optional_inputs(absent: tuple[str, ...]) -> None:
    compare_sequence({k: v for k, v in _sequence().items() if k not in absent}, 'triton')


def test_selective_scan_gives_subsets_of_gradients() -> None:
    inputs = _sequence(requires_grad=False)
    for name in ('A', 'delta'):
        inputs[name].requires_grad_()
    compare_sequence(inputs, 'triton')


def test_selective_scan_reads_non_contiguous_slices() -> None:
    inputs = _sequence(L=40, requires_grad=False)
    for name in ('u', 'delta', 'Bs', 'Cs'):
        wide = torch.randn(*inputs[name].shape[:-1], 80, device=DEVICE)
        wide[..., ::2] = inputs[name]
        inputs[name] = wide[..., ::2]
    inputs['A'] = inputs['A'].t().contiguous().t()
    assert not inputs['u'].is_contiguous() and not inputs['A'].is_contiguous()
    compare_sequence({k: v.requires_grad_() for k, v in inputs.items()}, 'triton')


@pytest.mark.parametrize('L, expected', [(256, 4), (300, 5), (555, 9)])
def test_selective_scan_matches_reference_in_several_segments(L: int, expected: int, segments: list[int]) -> None:
    compare_sequence(_sequence(D=4, L=L, G=2), 'triton')
    assert segments == [expected, expected]


def test_selective_scan_without_softplus_takes_positive_and_negative_steps() -> None:
    inputs = _sequence(L=20)
    with torch.no_grad():
        inputs['delta'].mul_(0.1), inputs['delta_bias'].zero_()
    compare_sequence(inputs, 'triton', delta_softplus=False)


@pytest.mark.parametrize('in_segments', [False, True])
def test_selective_scan_survives_huge_time_steps(in_segments: bool, request: pytest.FixtureRequest) -> None:
    if in_segments:
        request.getfixturevalue('segments')
    inputs = _sequence(L=300)
    with torch.no_grad():
        inputs['delta'].copy_(torch.rand_like(inputs['delta']) ** 4 * 1e4)
    compare_sequence(inputs, 'triton')


def test_selective_scan_keeps_the_relative_precision_of_tiny_time_steps() -> None:
    inputs = _sequence(requires_grad=False) | {'Ds': None}
    inputs['delta_bias'] -= 12
    with_bias = {k: v.double() if isinstance(v, Tensor) else v for k, v in inputs.items()}
    expected, _ = run_sequence(with_bias, 'reference')
    assert relative_error(run_sequence(inputs, 'triton')[0], expected) < 5e-6


@pytest.mark.filterwarnings('ignore:invalid value')  # numpy's, in the interpreter
@pytest.mark.parametrize('name', ['u', 'delta', 'Bs'])
@pytest.mark.parametrize('value', [float('nan'), float('inf')])
def test_selective_scan_contains_non_finite_inputs(name: str, value: float) -> None:
    inputs = _sequence(requires_grad=False)
    inputs[name].view(-1)[5] = value
    (y, _), (expected, _) = run_sequence(inputs, 'triton'), run_sequence(inputs, 'reference')
    finite = expected.isfinite()
    assert finite.any() and not finite.all()
    assert torch.equal(y.isfinite(), finite)
    assert relative_error(y[finite], expected[finite]) < 2e-5


@pytest.mark.parametrize('H, W', [(1, 1), (1, 9), (9, 1), (7, 8), (13, 12)])
def test_es2d_scan_matches_reference(H: int, W: int) -> None:
    compare_map(_map(H=H, W=W), 'triton', es2d_routes(2), 2)


@pytest.mark.parametrize('step', [3, 4])
def test_es2d_scan_matches_reference_for_wider_steps(step: int) -> None:
    compare_map(_map(H=11, W=9), 'triton', es2d_routes(step), step)


@pytest.mark.parametrize('dtype', [torch.float64, torch.bfloat16, torch.float16], ids=str)
def test_es2d_scan_matches_reference_in_every_dtype(dtype: torch.dtype) -> None:
    compare_map(_map(dtype=dtype), 'triton', es2d_routes(2), 2)


@pytest.mark.parametrize('D, N, R', [(1, 1, 1), (70, 1, 2), (5, 17, 7), (2, 256, 1)])
def test_es2d_scan_serves_any_width_state_size_and_rank(D: int, N: int, R: int) -> None:
    compare_map(_map(H=5, D=D, N=N, R=R), 'triton', es2d_routes(2), 2)


@pytest.mark.parametrize('absent', [('Ds',), ('dt_bias',), ('Ds', 'dt_bias')], ids='+'.join)
def test_es2d_scan_takes_absent_optional_inputs(absent: tuple[str, ...]) -> None:
    compare_map({k: v for k, v in _map().items() if k not in absent}, 'triton', es2d_routes(2), 2)


def test_es2d_scan_matches_reference_for_a_batch() -> None:
    compare_map(_map(B=3, H=5, W=6), 'triton', es2d_routes(2), 2)


def test_es2d_scan_reads_channels_first_maps() -> None:
    inputs = _map()
    inputs['x'] = inputs['x'].detach().permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1).requires_grad_()
    assert not inputs['x'].is_contiguous()
    compare_map(inputs, 'triton', es2d_routes(2), 2)


def test_visual_scan_matches_reference_in_several_segments(segments: list[int]) -> None:
    from mmevm.ops.triton import visual_scan as module

    inputs, routes = _map(H=33, W=35), es2d_routes(2)[::3]
    compare_map(inputs, 'triton', routes, 2)  # 17 x 18 tokens, rows and columns
    assert segments == [5, 5]
    tensors = [inputs[name] for name in ('x', 'x_dbl', 'dt_weight', 'dt_bias', 'A', 'Ds')]
    assert module.count_segments(*tensors, 2, routes) == 5


def test_visual_scan_sums_routes_that_share_cells() -> None:
    compare_map(_map(P=4), 'triton', SS2D, 1)


@pytest.mark.parametrize('W', [1, 131])
def test_visual_scan_serves_a_forward_and_backward_pair(W: int) -> None:
    compare_map(_map(H=1, W=W, P=2, K=2), 'triton', PAIR, 1)


def test_visual_scan_serves_a_forward_and_backward_pair_in_several_segments(segments: list[int]) -> None:
    compare_map(_map(H=1, W=299, P=2, K=2), 'triton', PAIR, 1)
    assert segments == [5, 5]


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16], ids=str)
def test_visual_scan_sums_gradients_of_what_routes_share(dtype: torch.dtype) -> None:
    compare_map(_map(D=70, N=1, K=2, dtype=dtype), 'triton', SHARED, 2)


def test_visual_scan_leaves_unvisited_cells_at_zero() -> None:
    inputs, routes = _map(), es2d_routes(2)[:3]
    compare_map(inputs, 'triton', routes, 2)
    y = visual_scan(**inputs, routes=routes, step=2, backend='triton')
    (dx,) = torch.autograd.grad(y.sum(), inputs['x'])
    assert y[:, 1::2, 1::2].eq(0).all() and dx[:, 1::2, 1::2].eq(0).all()


@pytest.mark.usefixtures('deterministic')
def test_scans_give_the_same_bits_again_when_asked_to() -> None:
    """More channels than a block has, and routes that share a projection: sums that otherwise come in any order."""
    sequence, image = _sequence(D=70, N=1), _map(D=70, N=1, K=2)
    compare_sequence(sequence, 'triton')
    compare_map(image, 'triton', SHARED, 2)
    for inputs, scan in (
        (sequence, lambda: run_sequence(sequence, 'triton')[0]),
        (image, lambda: visual_scan(**image, routes=SHARED, step=2, backend='triton')),
    ):
        first, second = (torch.autograd.grad(scan().sum(), list(inputs.values())) for _ in range(2))
        assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.usefixtures('deterministic')
def test_programs_share_no_sum_when_order_must_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing but zeros in a copy would mean that its program added to another one's."""
    from mmevm.ops.triton import launch

    copies, total = [], launch.total
    monkeypatch.setattr(launch, 'total', lambda tensor, dtype: (copies.append(tensor), total(tensor, dtype))[1])
    y = visual_scan(**_map(D=70, N=1, K=2), routes=SHARED, step=2, backend='triton')
    y.sum().backward()
    _, dx, dx_dbl = copies
    assert dx.shape[0] == 2 and dx_dbl.shape[0] == 4  # two routes over the same cells, twice two blocks of channels
    assert all(copy.any() for copy in (*dx, *dx_dbl))


def test_scans_return_empty_for_an_empty_batch() -> None:
    inputs = _sequence(B=0)
    y, last_state = run_sequence(inputs, 'triton')
    assert y.shape == (0, 8, 33) and last_state.shape == (0, 8, 4)
    y.sum().backward()
    assert inputs['u'].grad.shape == (0, 8, 33) and inputs['A'].grad.eq(0).all()
    image = _map(B=0)
    y = visual_scan(**image, routes=es2d_routes(), step=2, backend='triton')
    y.sum().backward()
    assert y.shape == (0, 9, 7, 6) and image['dt_weight'].grad.eq(0).all()


@pytest.mark.parametrize('kwargs', [{'dtype': torch.bfloat16}, {'G': 2}, {'B': 0}], ids=str)
def test_selective_scan_opcheck(kwargs: dict) -> None:
    i = _sequence(**kwargs)
    for Ds, bias in ((i['Ds'], i['delta_bias']), (None, None)):
        args = (i['u'], i['delta'], i['A'], i['Bs'], i['Cs'], Ds, bias, True, True)
        torch.library.opcheck(torch.ops.mmevm_triton.selective_scan.default, args)


@pytest.mark.parametrize('kwargs', [{'dtype': torch.bfloat16}, {'B': 0}], ids=str)
def test_visual_scan_opcheck(kwargs: dict) -> None:
    i = _map(H=3, W=3, **kwargs)
    for Ds, bias in ((i['Ds'], i['dt_bias']), (None, None)):
        args = (i['x'], i['x_dbl'], i['dt_weight'], bias, i['A'], Ds, 2, flatten(es2d_routes(2)), True)
        torch.library.opcheck(torch.ops.mmevm_triton.visual_scan.default, args)


def test_scans_save_the_states_that_the_compiled_kernels_save(extension: None) -> None:
    sequence, image = sequence_inputs(G=2, L=70, N=4), map_inputs(H=17, W=15, N=4)
    args = [sequence[k] for k in ('u', 'delta', 'A', 'Bs', 'Cs', 'Ds', 'delta_bias')]
    map_args = [*(image[k] for k in ('x', 'x_dbl', 'dt_weight', 'dt_bias', 'A', 'Ds')), 2, flatten(es2d_routes(2))]
    for triton, compiled, arguments in (
        (torch.ops.mmevm_triton.selective_scan, torch.ops.mmevm.selective_scan, [*args, True, True]),
        (torch.ops.mmevm_triton.visual_scan, torch.ops.mmevm.visual_scan, [*map_args, True]),
    ):
        on_device = [a.to(DEVICE) if isinstance(a, Tensor) else a for a in arguments]
        states, expected = triton(*on_device)[-1], compiled(*arguments)[-1]
        assert states.shape == expected.shape and relative_error(states.cpu(), expected) < 2e-5
        assert triton(*on_device[:-1], False)[-1].numel() == 0


def test_scans_compile_without_graph_breaks() -> None:
    inputs = _sequence()
    compiled = torch.compile(lambda **i: run_sequence(i, 'triton'), fullgraph=True, backend='aot_eager')
    for got, expected in zip(compiled(**inputs), run_sequence(inputs, 'triton'), strict=True):
        torch.testing.assert_close(got, expected)


def test_operators_have_the_schemas_of_the_compiled_ones(extension: None) -> None:
    for name in ('selective_scan', '_selective_scan_backward', 'visual_scan', '_visual_scan_backward'):
        ours, compiled = (getattr(n, name).default._schema for n in (torch.ops.mmevm_triton, torch.ops.mmevm))
        assert str(ours).replace('mmevm_triton::', 'mmevm::') == str(compiled)


def test_operators_repeat_the_checks() -> None:
    i = _sequence()
    args = [i['u'], i['delta'][..., 1:], i['A'], i['Bs'], i['Cs'], None, None, True, False]
    with pytest.raises(ValueError, match=r'`delta` must have shape \[B, D, L\] = \[1, 8, 33\], got \[1, 8, 32\]'):
        torch.ops.mmevm_triton.selective_scan(*args)
    m = _map()
    args = [m['x'], m['x_dbl'], m['dt_weight'], m['dt_bias'], m['A'], m['Ds'], 2]
    for routes, message in (([0, 0, 0, 0, 0, 1], 'below P = 1'), ([0, 0, 0], 'must hold 6 integers per route, got 3')):
        with pytest.raises(ValueError, match=message):
            torch.ops.mmevm_triton.visual_scan(*args, routes, False)


@pytest.mark.skipif(DEVICE == 'cuda', reason='the interpreter is off where there is a GPU')
def test_interpreter_scans_slices_as_it_scans_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    from . import interpreter

    inputs = _sequence(D=2, N=2, L=5)
    results = []
    for scan, reduce in (
        (interpreter.scan_slices, interpreter.reduce_slices),
        (interpreter.slow_scan, interpreter.slow_reduce),
    ):
        monkeypatch.setattr(interpreter.ScanOps, 'generic_scan', scan)
        monkeypatch.setattr(interpreter.ReduceOps, 'generic_reduce', reduce)
        y, last_state = run_sequence(inputs, 'triton')
        results.append([y, last_state, *torch.autograd.grad(y.sum(), list(inputs.values()))])
    for fast, slow in zip(*results, strict=True):
        assert torch.equal(fast, slow)
