"""How the operators run on the GPU: compiled graphs, CUDA graphs, several streams, the same bits every time."""

from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch

from mmevm.ops import es2d_routes

from ..test_ops.samples import SS2D, map_inputs, sequence_inputs
from .comparison import (
    Inputs,
    Results,
    Scan,
    assert_close,
    map_scan,
    on_device,
    output_gradients,
    results,
    sequence_scan,
)
from .device import REHEARSAL, needs_cuda

pytestmark = pytest.mark.gpu


class Case(NamedTuple):
    """An operator and how its inputs are made."""

    scan: Scan
    sample: Callable[..., Inputs]
    sizes: dict[str, int]

    def inputs(self, seed: int = 0, dtype: torch.dtype = torch.float32) -> Inputs:
        """Inputs on the device, all of which require gradients."""
        return on_device(self.sample(**self.sizes, dtype=dtype, requires_grad=True, seed=seed))


CASES = {
    'selective_scan': Case(sequence_scan, sequence_inputs, {'D': 40, 'L': 131, 'G': 4}),
    'es2d_scan': Case(map_scan(es2d_routes(2), 2), map_inputs, {'H': 23, 'W': 30, 'D': 40}),
    'ss2d_scan': Case(map_scan(SS2D, 1), map_inputs, {'H': 11, 'W': 14, 'D': 40, 'P': 4}),
}


@pytest.fixture(params=CASES.values(), ids=CASES.keys())
def case(request: pytest.FixtureRequest) -> Case:
    """Each operator."""
    return request.param


def assert_equal(got: Results, expected: Results) -> None:
    """Asserts equality in every bit."""
    for name, value in got.items():
        assert torch.equal(value, expected[name]), name


def test_scan_compiles_without_graph_breaks(backend: str, case: Case) -> None:
    torch._dynamo.reset()
    # Inductor's C++ compiler is not what the rehearsal is about.
    compile_with = 'aot_eager' if REHEARSAL else 'inductor'
    compiled = torch.compile(lambda inputs: case.scan(inputs, backend), fullgraph=True, backend=compile_with)
    inputs = case.inputs()
    got = results(lambda tensors, _: compiled(tensors), inputs, backend)
    assert_close(got, results(case.scan, inputs, backend), torch.float32)


@needs_cuda
def test_scan_replays_in_a_cuda_graph(backend: str, case: Case) -> None:
    static = case.inputs()
    seeds = output_gradients(case.scan(static, backend))
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):  # kernels are loaded, and compiled, before the capture
        results(case.scan, static, backend, lambda _: seeds)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        got = results(case.scan, static, backend, lambda _: seeds)
    for seed in (1, 2):
        fresh = case.inputs(seed)
        with torch.no_grad():
            for name, tensor in static.items():
                tensor.copy_(fresh[name])
        graph.replay()
        assert_close(got, results(case.scan, fresh, backend), torch.float32)


@needs_cuda
@pytest.mark.parametrize('trained', [False, True], ids=['inference', 'training'])
def test_scan_first_runs_while_a_graph_is_recorded(backend: str, trained: bool) -> None:
    """Nothing that outlives the call may lie in the graph's memory; other tests have warmed up before they record."""
    routes = es2d_routes(2)[::-1] if trained else es2d_routes(2)[1:] + es2d_routes(2)[:1]  # which no other test has
    scan, sizes = map_scan(routes, 2), {'H': 10, 'W': 14, 'D': 32, 'dtype': torch.float32}
    torch._dynamo.reset()
    compiled = torch.compile(lambda inputs: scan(inputs, backend), fullgraph=True, mode='reduce-overhead')
    for seed in range(4):  # runs as it is, is recorded, is replayed
        inputs = on_device(map_inputs(**sizes, requires_grad=trained, seed=seed))
        torch.compiler.cudagraph_mark_step_begin()
        got = {name: value.clone() for name, value in results(lambda i, _: compiled(i), inputs, backend).items()}
        exact = on_device(map_inputs(**sizes | {'dtype': torch.float64}, requires_grad=trained, seed=seed))
        assert_close(got, results(scan, exact, 'reference'), torch.float32)


@needs_cuda
def test_scan_first_runs_in_a_capture(backend: str) -> None:
    if backend == 'triton':
        pytest.skip('Triton loads a kernel when it first runs, which a capture forbids')
    inputs = CASES['es2d_scan'].inputs()
    scan = map_scan(es2d_routes(2)[2:] + es2d_routes(2)[:2], 2)
    graph = torch.cuda.CUDAGraph()
    with torch.inference_mode(), torch.cuda.graph(graph):
        (y,) = scan(inputs, backend)
    graph.replay()
    assert_close({'out0': y}, {'out0': scan(inputs, 'reference')[0].detach()}, torch.float32)


@needs_cuda
def test_scan_runs_on_two_streams_at_once(backend: str, case: Case) -> None:
    both = [case.inputs(seed) for seed in (1, 2)]
    seeds = output_gradients(case.scan(both[0], backend))  # made before, because copies to the GPU would wait
    expected = [results(case.scan, inputs, backend, lambda _: seeds) for inputs in both]
    torch.cuda.synchronize()
    streams = [torch.cuda.Stream(), torch.cuda.Stream()]
    rounds = []
    for _ in range(5):
        got = []
        for stream, inputs in zip(streams, both, strict=True):
            with torch.cuda.stream(stream):
                got.append(results(case.scan, inputs, backend, lambda _: seeds))
        rounds.append(got)
    torch.cuda.synchronize()
    for got in rounds:
        for found, wanted in zip(got, expected, strict=True):
            assert_close(found, wanted, torch.float32)


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16], ids=str)
def test_scan_gives_the_same_bits_every_time(backend: str, case: Case, dtype: torch.dtype, deterministic: None) -> None:
    inputs = case.inputs(dtype=dtype)
    first = results(case.scan, inputs, backend)
    for _ in range(4):
        assert_equal(results(case.scan, inputs, backend), first)


def test_scan_writes_every_element_that_it_returns(backend: str, case: Case, deterministic: None) -> None:
    assert torch.empty(1000).isnan().all()  # fresh memory is filled with NaN
    inputs = case.inputs()
    for value in results(case.scan, inputs, backend).values():
        assert value.isfinite().all()


def test_scan_in_inference_mode_gives_what_training_gives(backend: str, case: Case) -> None:
    inputs = case.inputs()
    with torch.inference_mode():
        got = {f'out{i}': y for i, y in enumerate(case.scan(inputs, backend))}
    trained = results(case.scan, inputs, backend)
    assert_close(got, {name: trained[name] for name in got}, torch.float32)
