"""The scan over a feature map: every backend against the reference in float64."""

import numpy as np
import pytest
import torch
from torch import Tensor

from mmevm.ops import Route, es2d_routes, es2d_scan, selective_scan, visual_scan

from .compare import compare_map
from .samples import PAIR, SS2D, TOLERANCE, map_inputs, relative_error

pytestmark = pytest.mark.usefixtures('extension')


@pytest.mark.parametrize('H, W', [(1, 1), (1, 9), (9, 1), (2, 2), (7, 8), (8, 7), (16, 24), (33, 31)])
def test_es2d_scan_matches_reference(H: int, W: int) -> None:
    compare_map(map_inputs(H=H, W=W, requires_grad=True), 'compiled', es2d_routes(2), 2)


@pytest.mark.parametrize('step', [3, 4, 5])
def test_es2d_scan_matches_reference_for_wider_steps(step: int) -> None:
    compare_map(map_inputs(H=11, W=9, requires_grad=True), 'compiled', es2d_routes(step), step)


@pytest.mark.parametrize('dtype', [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_es2d_scan_matches_reference_in_every_dtype(dtype: torch.dtype) -> None:
    compare_map(map_inputs(dtype=dtype, requires_grad=True), 'compiled', es2d_routes(2), 2)


@pytest.mark.parametrize('D, N, R', [(1, 1, 1), (5, 2, 2), (40, 17, 7), (16, 256, 1)])
def test_es2d_scan_serves_any_width_state_size_and_rank(D: int, N: int, R: int) -> None:
    compare_map(map_inputs(D=D, N=N, R=R, requires_grad=True), 'compiled', es2d_routes(2), 2)


@pytest.mark.parametrize('absent', [('Ds',), ('dt_bias',), ('Ds', 'dt_bias')], ids='+'.join)
def test_es2d_scan_takes_absent_optional_inputs(absent: tuple[str, ...]) -> None:
    inputs = map_inputs(requires_grad=True)
    compare_map({k: v for k, v in inputs.items() if k not in absent}, 'compiled', es2d_routes(2), 2)


@pytest.mark.parametrize('wanted', [('x',), ('x_dbl',), ('A', 'dt_bias'), ('dt_weight', 'Ds')], ids='+'.join)
def test_es2d_scan_gives_subsets_of_gradients(wanted: tuple[str, ...]) -> None:
    inputs = map_inputs()
    for name in wanted:
        inputs[name].requires_grad_()
    compare_map(inputs, 'compiled', es2d_routes(2), 2)


def test_es2d_scan_reads_channels_first_maps() -> None:
    inputs = map_inputs()
    inputs['x'] = inputs['x'].permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)
    assert not inputs['x'].is_contiguous()
    compare_map(inputs, 'compiled', es2d_routes(2), 2)


def test_visual_scan_sums_routes_that_share_cells() -> None:
    compare_map(map_inputs(P=4, D=40, requires_grad=True), 'compiled', SS2D, 1)


def test_visual_scan_serves_a_forward_and_backward_pair() -> None:
    compare_map(map_inputs(H=1, W=131, P=2, K=2, requires_grad=True), 'compiled', PAIR, 1)


def test_visual_scan_leaves_unvisited_cells_at_zero() -> None:
    inputs = map_inputs(requires_grad=True)
    compare_map(inputs, 'compiled', es2d_routes(2)[:3], 2)
    y = visual_scan(**inputs, routes=es2d_routes(2)[:3], step=2, backend='compiled')
    assert y[:, 1::2, 1::2].eq(0).all()


def test_es2d_scan_visits_phases_as_specified() -> None:
    """Against phases copied out by hand: (0, 0) and (0, 1) along the rows, (1, 0) and (1, 1) down the columns."""
    i = map_inputs(H=6, W=8, D=4, N=2, R=3)
    expected = torch.zeros_like(i['x'])
    for k, (m, n) in enumerate([(0, 0), (1, 0), (0, 1), (1, 1)]):
        order = (0, 3, 2, 1) if m else (0, 3, 1, 2)
        x, x_dbl = (t[:, m::2, n::2].permute(order).flatten(2) for t in (i['x'], i['x_dbl'][:, :, :, 0]))
        dt, Bs, Cs = x_dbl.split([3, 2, 2], dim=1)
        y = selective_scan(
            x, i['dt_weight'][k] @ dt, i['A'][k], Bs, Cs, i['Ds'][k], delta_bias=i['dt_bias'][k], delta_softplus=True
        )
        cells = y.unflatten(-1, (4, 3)).mT if m else y.unflatten(-1, (3, 4))
        expected[:, m::2, n::2] = cells.permute(0, 2, 3, 1)
    inputs = i | {'x_dbl': i['x_dbl'].squeeze(3)}
    for backend in ('reference', 'compiled'):
        assert relative_error(es2d_scan(**inputs, backend=backend), expected) < TOLERANCE[torch.float32]


@pytest.mark.parametrize('step', [2, 3, 4, 7])
def test_es2d_routes_cover_every_cell_once(step: int) -> None:
    routes = es2d_routes(step)
    assert sorted((r.row, r.col) for r in routes) == [(m, n) for m in range(step) for n in range(step)]
    assert all(r.parameters == r.row % 2 + 2 * (r.col % 2) for r in routes)


@pytest.mark.parametrize('routes, step, P', [(es2d_routes(2), 2, 1), (SS2D, 1, 4)], ids=['es2d', 'ss2d'])
def test_visual_scan_gradcheck(routes: list[Route], step: int, P: int) -> None:
    inputs = map_inputs(B=1, H=3, W=3, D=2, N=2, R=1, P=P, dtype=torch.float64, requires_grad=True)
    for backend in ('reference', 'compiled'):

        def scan(*tensors: Tensor, backend: str = backend) -> Tensor:
            return visual_scan(**dict(zip(inputs, tensors, strict=True)), routes=routes, step=step, backend=backend)

        assert torch.autograd.gradcheck(scan, tuple(inputs.values()))


@pytest.mark.parametrize('kwargs', [{}, {'dtype': torch.bfloat16}, {'H': 33, 'W': 31}, {'B': 0}], ids=str)
def test_visual_scan_opcheck(kwargs: dict) -> None:
    i = map_inputs(requires_grad=True, **kwargs)
    routes = [int(field) for route in es2d_routes(2) for field in route]
    for Ds, bias in ((i['Ds'], i['dt_bias']), (None, None)):
        args = (i['x'], i['x_dbl'], i['dt_weight'], bias, i['A'], Ds, 2, routes, True)
        torch.library.opcheck(torch.ops.mmevm.visual_scan.default, args)


@pytest.mark.parametrize('backend', ['reference', 'compiled'])
def test_es2d_scan_returns_empty_for_an_empty_batch(backend: str) -> None:
    inputs = map_inputs(B=0, requires_grad=True)
    y = visual_scan(**inputs, routes=es2d_routes(), step=2, backend=backend)
    y.sum().backward()
    assert y.shape == (0, 9, 7, 20) and inputs['A'].grad.eq(0).all()


@pytest.mark.parametrize('threads', [1, 3, 16])
def test_visual_scan_gives_the_same_on_any_number_of_threads(threads: int) -> None:
    inputs = map_inputs(D=70, P=4, requires_grad=True)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        compare_map(inputs, 'compiled', es2d_routes(2), 2)
        compare_map(inputs, 'compiled', SS2D, 1)
    finally:
        torch.set_num_threads(before)


def test_es2d_scan_saves_no_states_without_gradients() -> None:
    i = map_inputs()
    routes = [int(field) for route in es2d_routes(2) for field in route]
    args = (i['x'], i['x_dbl'], i['dt_weight'], i['dt_bias'], i['A'], i['Ds'], 2, routes)
    assert torch.ops.mmevm.visual_scan(*args, False)[1].numel() == 0
    assert torch.ops.mmevm.visual_scan(*args, True)[1].shape == (2, 4, 1, 16, 20)


BAD = {
    'short x_dbl': ({'x_dbl': torch.zeros(2, 9, 7, 34)}, ValueError, r'`x_dbl` must have shape .*35\], got .*34\]'),
    'flat x': ({'x': torch.zeros(9, 7, 20)}, ValueError, r'`x` must have shape \[B, H, W, D\], got \[9, 7, 20\]'),
    'complex A': ({'A': torch.zeros(4, 20, 16, dtype=torch.complex64)}, TypeError, r'`A` .*complex'),
    'half weight': ({'dt_weight': torch.zeros(4, 20, 3).half()}, TypeError, r'`dt_weight` must be torch.float32'),
    'integer x': ({'x': torch.zeros(2, 9, 7, 20).int()}, TypeError, r'`x` must be float16'),
    'few sets': (
        {k: torch.zeros(3, 20, n) for k, n in (('A', 16), ('dt_weight', 3))} | {'Ds': None, 'dt_bias': None},
        ValueError,
        'must be below K = 3',
    ),
    'five sets': (
        {name: torch.zeros(5, 20, size) for name, size in (('dt_weight', 3), ('A', 16))},
        ValueError,
        '`A` must hold 4 parameter sets, which ES2D uses, got 5',
    ),
    'projections': ({'x_dbl': torch.zeros(2, 9, 7, 4, 35)}, ValueError, r'shape \[B, H, W, R \+ 2N\], got \[2, 9, 7'),
    'list x_dbl': ({'x_dbl': [0.0]}, TypeError, '`x_dbl` must be a tensor, got list'),
    'step as text': ({'step': '2'}, TypeError, "`step` must be an integer, got '2'"),
    'step 1': ({'step': 1}, ValueError, '`step` must be at least 2 for the atrous scan, got 1'),
    'step 0': ({'step': 0}, ValueError, '`step` must be at least 2 for the atrous scan, got 0'),
    'other device': ({'dt_bias': torch.zeros(4, 20, device='meta')}, ValueError, '`dt_bias` must be on cpu'),
    'array x': ({'x': np.zeros((2, 9, 7, 20))}, TypeError, '`x` must be a tensor, got ndarray; convert it'),
    'list A': ({'A': [[0.0]]}, TypeError, '`A` must be a tensor, got list'),
    'no weight': ({'dt_weight': None}, TypeError, '`dt_weight` must be a tensor, got NoneType'),
    'empty map': ({'x': torch.zeros(2, 0, 7, 20)}, ValueError, 'at least one cell and one channel'),
}


@pytest.mark.parametrize('change, error, message', BAD.values(), ids=BAD.keys())
def test_es2d_scan_rejects(change: dict, error: type, message: str) -> None:
    inputs = map_inputs()
    with pytest.raises(error, match=message):
        es2d_scan(**inputs | {'x_dbl': inputs['x_dbl'].squeeze(3)} | change)


@pytest.mark.parametrize(
    'route, message',
    [
        (Route(2, 0, False, False, 0, 0), 'inside the first 2 x 2 cells'),
        (Route(0, 0, False, False, 4, 0), 'below K = 4'),
        (Route(0, 0, False, False, 0, 1), 'below P = 1'),
    ],
)
def test_visual_scan_rejects_routes(route: Route, message: str) -> None:
    i = map_inputs()
    with pytest.raises(ValueError, match=message):
        visual_scan(**i, routes=[route], step=2)
    args = (i['x'], i['x_dbl'], i['dt_weight'], i['dt_bias'], i['A'], i['Ds'], 2, [int(f) for f in route], False)
    with pytest.raises(ValueError, match=message):
        torch.ops.mmevm.visual_scan(*args)


@pytest.mark.parametrize(
    'change, message',
    [
        ({'step': '2'}, "`step` must be an integer, got '2'"),
        ({'step': 2.0}, '`step` must be an integer, got 2.0'),
        ({'routes': [(0, 0, False, False, 0, 0)]}, r'`routes` must be a list of mmevm\.ops\.Route, got list .*Route\('),
        ({'routes': (route for route in es2d_routes())}, '`routes` must be a list .*, got generator'),
        ({'routes': None}, '`routes` must be a list .*, got NoneType'),
    ],
    ids=['text', 'float', 'plain tuples', 'generator', 'None'],
)
def test_visual_scan_rejects_routes_and_steps_of_other_types(change: dict, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        visual_scan(**map_inputs(), **{'routes': es2d_routes(), 'step': 2, **change})


def test_es2d_scan_compiles_and_exports_for_any_size() -> None:
    class Scan(torch.nn.Module):
        def forward(self, x: Tensor, x_dbl: Tensor, dt_weight: Tensor, A: Tensor) -> Tensor:
            return es2d_scan(x, x_dbl, dt_weight, A)

    def args(H: int, W: int) -> tuple[Tensor, ...]:
        i = map_inputs(H=H, W=W)
        return i['x'], i['x_dbl'].squeeze(3), i['dt_weight'], i['A']

    scan = Scan()
    compiled = torch.compile(scan, fullgraph=True, backend='aot_eager')
    torch.testing.assert_close(compiled(*args(9, 7)), scan(*args(9, 7)))
    sizes = {1: torch.export.Dim('H', min=2, max=64), 2: torch.export.Dim('W', min=2, max=64)}
    program = torch.export.export(scan, args(9, 7), dynamic_shapes=(sizes, sizes, None, None))
    assert 'mmevm.visual_scan' in program.graph_module.code
    torch.testing.assert_close(program.module()(*args(12, 5)), scan(*args(12, 5)))
