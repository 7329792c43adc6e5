"""Second derivatives, forward mode and ``torch.func``, which the kernels leave to the reference's formula."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from mmevm.layers.mixers import ES2D, project_phases
from mmevm.layers.mixers import SS2D as SS2D_Mixer
from mmevm.layers.vim import BidirectionalMamba
from mmevm.ops import backends, es2d_routes, selective_scan, visual_scan

from .samples import SS2D, map_inputs, sequence_inputs

pytestmark = pytest.mark.usefixtures('extension')

Scan = Callable[..., Tensor]


def _sequence(backend: str) -> tuple[Scan, list[Tensor]]:
    inputs = sequence_inputs(B=2, D=4, L=7, N=2, G=2, dtype=torch.float64, requires_grad=True)
    z = inputs['delta'].detach().flip(-1).requires_grad_()

    def scan(*tensors: Tensor) -> Tensor:
        *given, gate = tensors
        named = dict(zip(inputs, given, strict=True))
        y, state = selective_scan(**named, z=gate, delta_softplus=True, return_last_state=True, backend=backend)
        return torch.cat([y.flatten(), state.flatten()])

    return scan, [*inputs.values(), z]


def _map(backend: str, routes: list, step: int, P: int) -> tuple[Scan, list[Tensor]]:
    inputs = map_inputs(B=2, H=3, W=5, D=3, N=2, R=2, P=P, dtype=torch.float64, requires_grad=True)

    def scan(*tensors: Tensor) -> Tensor:
        return visual_scan(**dict(zip(inputs, tensors, strict=True)), routes=routes, step=step, backend=backend)

    return scan, list(inputs.values())


def _phases(_: str) -> tuple[Scan, list[Tensor]]:
    shapes = (2, 5, 3, 4), (4, 3, 4)
    x, weight = (torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes)
    return lambda x, weight: project_phases(x, weight, 2), [x, weight]


CASES = {
    'selective_scan': _sequence,
    'es2d': lambda backend: _map(backend, es2d_routes(2), 2, 1),
    'ss2d': lambda backend: _map(backend, SS2D, 1, 4),
    'project_phases': _phases,
}
every_case = pytest.mark.parametrize('case', CASES.values(), ids=CASES.keys())


def _penalty(scan: Scan, inputs: list[Tensor]) -> tuple[Tensor, ...]:
    """Gradients of the squared norm of the gradients, as a gradient penalty has them."""
    grads = torch.autograd.grad(scan(*inputs).square().sum(), inputs, create_graph=True)
    return torch.autograd.grad(sum(g.square().sum() for g in grads), inputs)


@every_case
@pytest.mark.parametrize('backend', ['compiled', 'triton'])
def test_second_derivatives_are_the_references(case: Callable, backend: str) -> None:
    (scan, inputs), (reference, _) = case(backend), case('reference')
    for got, expected in zip(_penalty(scan, inputs), _penalty(reference, inputs), strict=True):
        assert expected.abs().max() > 1e-3
        torch.testing.assert_close(got, expected)


@every_case
def test_second_derivatives_are_those_of_differences(case: Callable) -> None:
    scan, inputs = case('compiled')
    assert torch.autograd.gradgradcheck(lambda *tensors: scan(*tensors).square(), inputs, fast_mode=True)


def test_third_derivatives_are_the_references() -> None:
    def third(backend: str) -> Tensor:
        scan, inputs = _sequence(backend)
        value = scan(*inputs).pow(2).sum()
        for _ in range(2):
            value = torch.autograd.grad(value, inputs[0], create_graph=True)[0].pow(2).sum()
        return torch.autograd.grad(value, inputs[2])[0]

    expected = third('reference')
    assert expected.abs().max() > 1e-3
    torch.testing.assert_close(third('compiled'), expected)


@every_case
@pytest.mark.parametrize('grad_mode', [True, False], ids=['grad', 'no_grad'])
@pytest.mark.parametrize('frozen', [True, False], ids=['frozen', 'trained'])
def test_tangents_pass_in_both_forms_of_forward_mode(case: Callable, grad_mode: bool, frozen: bool) -> None:
    scan, inputs = case('auto')
    inputs = [t.detach().requires_grad_(not frozen) for t in inputs]
    tangents = [torch.randn_like(t) for t in inputs]
    # With one input moving at a time, what another one's tangent hides comes out.
    for i in range(len(inputs)):

        def along(t: Tensor, i: int = i) -> Tensor:
            return scan(*inputs[:i], t, *inputs[i + 1 :])

        expected = torch.autograd.functional.jvp(along, inputs[i].detach(), tangents[i])[1]
        with torch.set_grad_enabled(grad_mode):
            _, by_transform = torch.func.jvp(along, (inputs[i],), (tangents[i],))
            with forward_ad.dual_level():
                dual = along(forward_ad.make_dual(inputs[i], tangents[i]))
                by_dual = forward_ad.unpack_dual(dual).tangent
        torch.testing.assert_close(by_transform, expected)
        torch.testing.assert_close(by_dual, expected)


@every_case
def test_gradients_by_torch_func_are_autograds(case: Callable) -> None:
    scan, inputs = case('auto')
    expected = torch.autograd.grad(scan(*inputs).square().sum(), inputs)
    argnums = tuple(range(len(inputs)))
    got = torch.func.grad(lambda *tensors: scan(*tensors).square().sum(), argnums)(*inputs)
    for g, e in zip(got, expected, strict=True):
        torch.testing.assert_close(g, e)


@every_case
def test_vmap_over_any_input_is_a_loop(case: Callable) -> None:
    scan, inputs = case('auto')
    for i in range(len(inputs)):
        several = torch.stack([inputs[i].detach() * factor for factor in (1.0, 0.5, 1.5)])
        dims = tuple(0 if j == i else None for j in range(len(inputs)))
        got = torch.func.vmap(scan, dims)(*inputs[:i], several, *inputs[i + 1 :])
        expected = torch.stack([scan(*inputs[:i], one, *inputs[i + 1 :]) for one in several])
        torch.testing.assert_close(got, expected)


@every_case
def test_vectorised_jacobians_are_a_loop(case: Callable) -> None:
    scan, inputs = case('auto')
    y = scan(*inputs)
    seeds = torch.randn(3, *y.shape, dtype=y.dtype)
    got = torch.autograd.grad(y, inputs, seeds, is_grads_batched=True, retain_graph=True)
    for k, seed in enumerate(seeds):
        for g, e in zip(got, torch.autograd.grad(y, inputs, seed, retain_graph=True), strict=True):
            torch.testing.assert_close(g[k], e)


def test_a_backend_asked_for_by_name_refuses_transforms() -> None:
    scan, inputs = _sequence('compiled')
    with pytest.raises(RuntimeError, match='torch.func transforms and forward-mode .* use backend="reference"'):
        torch.func.grad(lambda u: scan(u, *inputs[1:]).sum())(inputs[0])


def test_a_graph_without_states_still_has_a_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    for case in (_sequence, CASES['es2d']):
        scan, inputs = case('compiled')
        expected = torch.autograd.grad(scan(*inputs).sum(), inputs)
        with monkeypatch.context() as patch:
            patch.setattr(backends, 'needs_grad', lambda *_: False)
            got = torch.autograd.grad(scan(*inputs).sum(), inputs)
        for g, e in zip(got, expected, strict=True):
            torch.testing.assert_close(g, e)


def test_compiled_graphs_hold_the_kernels() -> None:
    for case, name in ((_sequence, 'selective_scan'), (CASES['es2d'], 'visual_scan')):
        scan, inputs = case('auto')
        graphs: list[str] = []

        def keep(graph: torch.fx.GraphModule, _: list, graphs: list[str] = graphs) -> Callable:
            graphs.append(graph.code)
            return graph

        compiled = torch.compile(scan, fullgraph=True, backend=keep)
        torch.testing.assert_close(compiled(*inputs), scan(*inputs))
        assert f'torch.ops.mmevm.{name}' in graphs[0]


@pytest.mark.parametrize(
    'mixer', [BidirectionalMamba(8), ES2D(8), SS2D_Mixer(8)], ids=lambda mixer: type(mixer).__name__
)
def test_tangents_of_every_parameter_arrive(mixer: nn.Module) -> None:
    x = torch.randn(1, 6, 8) if isinstance(mixer, BidirectionalMamba) else torch.randn(1, 4, 6, 8)
    parameters = dict(mixer.named_parameters())
    with torch.no_grad(), forward_ad.dual_level():
        for name, parameter in parameters.items():
            dual = forward_ad.make_dual(parameter.detach(), torch.ones_like(parameter))
            y = torch.func.functional_call(mixer, {**parameters, name: dual}, (x,))
            tangent = forward_ad.unpack_dual(y).tangent
            assert tangent is not None and tangent.abs().max() > 0, name
