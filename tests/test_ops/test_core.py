"""csrc/core in a host that is not PyTorch: it includes none of PyTorch's headers, and stays within its workspace."""

import ctypes
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from mmevm.ops import Route, es2d_routes, visual_scan
from mmevm.ops.routes import flatten
from tests.emulation.build import load_core_host

from .samples import PAIR, SHARED, SS2D, map_inputs, relative_error

pytestmark = pytest.mark.usefixtures('extension')


@pytest.fixture(scope='module')
def scan_map() -> Callable[..., int]:
    """The function of the same name in core_host.cpp."""
    function = load_core_host().scan_map
    function.restype = ctypes.c_int64
    return function


def _integers(values: list[int]) -> ctypes.Array:
    return (ctypes.c_int64 * len(values))(*values)


def _pointers(tensors: list[Tensor | None]) -> ctypes.Array:
    return (ctypes.c_void_p * len(tensors))(*(None if t is None else t.data_ptr() for t in tensors))


@pytest.mark.parametrize('threads', [1, 3, 16])
@pytest.mark.parametrize('routes, step, P', [(es2d_routes(), 2, 1), (PAIR, 1, 2), (SHARED, 2, 1)])
def test_scans_equal_those_of_pytorch_bit_by_bit(
    scan_map: Callable[..., int], routes: list[Route], step: int, P: int, threads: int
) -> None:
    i = map_inputs(B=2, H=13, W=11, D=70, N=5, P=P)
    x, x_dbl, weight, bias, A, Ds = (i[name] for name in ('x', 'x_dbl', 'dt_weight', 'dt_bias', 'A', 'Ds'))
    flat, dy = flatten(routes), torch.randn_like(x)
    y, states = torch.ops.mmevm.visual_scan(x, x_dbl, weight, bias, A, Ds, step, flat, True)
    dx = torch.ops.mmevm._visual_scan_backward(dy, x, x_dbl, weight, bias, A, Ds, states, step, flat)[0]

    n, (K, D, R) = len(routes), weight.shape
    sizes = _integers([*x.shape, A.shape[2], R, K, P])
    inputs = _pointers([x, x_dbl, weight, bias, A, Ds, dy])
    common = (sizes, ctypes.c_int64(step), _integers(flat), ctypes.c_int64(len(flat)), threads, inputs)
    copies = scan_map(*common, _pointers([None] * 8))
    assert 1 <= copies <= max(1, 2 * threads)
    results = [
        torch.zeros_like(x),
        torch.full_like(states, torch.nan),
        torch.zeros_like(x),
        x_dbl.new_zeros(copies, *x_dbl.shape),
        *(x.new_full((2, n, D, *tail), torch.nan) for tail in ((R,), (), (A.shape[2],), ())),
    ]
    assert scan_map(*common, _pointers(results)) == copies
    assert all(torch.equal(a, b) for a, b in zip(results, (y, states, dx), strict=False))
    assert all(result.isfinite().all() for result in results)


@pytest.mark.parametrize('threads', [1, 3])
@pytest.mark.parametrize('routes, step', [(SS2D, 1), (PAIR, 1), (es2d_routes(), 2)])
def test_scans_that_project_their_cells_stay_within_their_workspace(
    routes: list[Route], step: int, threads: int
) -> None:
    run = load_core_host().scan_projected
    run.restype = ctypes.c_bool
    B, H, W, D, N, R, K = 2, 13, 101, 70, 5, 3, 1 + max(route.parameters for route in routes)
    routes = [route._replace(projection=route.parameters) for route in routes]
    x, x_proj = torch.randn(B, H, W, D), torch.randn(K, R + 2 * N, D) * D**-0.5
    weight, bias, A, Ds = torch.randn(K, D, R), torch.randn(K, D), -torch.rand(K, D, N), torch.randn(K, D)
    flat, y = flatten(routes), torch.zeros_like(x)
    sizes, inputs = _integers([B, H, W, D, N, R, K]), _pointers([x, x_proj, weight, bias, A, Ds])
    step_, count = ctypes.c_int64(step), ctypes.c_int64(len(flat))
    assert run(sizes, step_, _integers(flat), count, threads, inputs, ctypes.c_void_p(y.data_ptr()))
    x_dbl = torch.einsum('bhwd,pmd->bhwpm', x, x_proj)
    expected = visual_scan(x, x_dbl, weight, A, Ds, routes=routes, step=step, dt_bias=bias, backend='reference')
    assert relative_error(y, expected) < 2e-5


def test_routes_that_do_not_fit_are_refused(scan_map: Callable[..., int]) -> None:
    sizes, routes = _integers([1, 2, 2, 1, 1, 1, 1, 1]), _integers([0, 0, 0, 0, 1, 0])
    assert (
        scan_map(sizes, ctypes.c_int64(1), routes, ctypes.c_int64(6), 1, _pointers([None] * 7), _pointers([None] * 8))
        == -1
    )
