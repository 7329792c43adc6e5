"""The scan's ONNX function against the operator that it stands for."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper

from mmevm.deploy.functions import DOMAIN, INPUTS, VisualScan
from mmevm.layers.mixers import ROUTES
from mmevm.ops import Route, es2d_routes, visual_scan

RANKS = (4, 3, 3, 2, 3, 2)


def phases(step: int) -> list[Route]:
    return sorted(route._replace(projection=route.parameters) for route in es2d_routes(step))


CASES = {
    'ES2D': (phases(2), 2),
    'ES2D of step 3': (phases(3), 3),
    'SS2D': (ROUTES, 1),
    'backward': ([Route(0, 0, False, True, 0, 0)], 1),
}


def make_session(
    routes: list[Route], step: int, options: onnxruntime.SessionOptions | None = None
) -> onnxruntime.InferenceSession:
    """A session on a graph of one node."""
    fields = [int(field) for route in routes for field in route]
    node = helper.make_node('VisualScan', INPUTS, ['y'], domain=DOMAIN, step=step, routes=fields)
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [None] * rank)
        for name, rank in zip(INPUTS, RANKS, strict=True)
    ]
    graph = helper.make_graph(
        [node], 'scan', inputs, [helper.make_tensor_value_info('y', TensorProto.FLOAT, [None] * 4)]
    )
    model = helper.make_model(
        graph,
        functions=[VisualScan.to_function_proto()],
        opset_imports=[helper.make_opsetid('', 18), helper.make_opsetid(DOMAIN, 1)],
        ir_version=10,
    )
    onnx.checker.check_model(model)
    return onnxruntime.InferenceSession(model.SerializeToString(), options)


def check_against_the_operator(session: onnxruntime.InferenceSession, routes: list[Route], step: int) -> None:
    """Compare a session with the reference in float64, for maps of several shapes."""
    sets = 1 + max(route.parameters for route in routes)
    D, N, R = 6, 16, 2
    x_proj, dt_weight, A = torch.randn(sets, R + 2 * N, D), torch.randn(sets, D, R), -torch.rand(sets, D, N) * 16
    # From time steps that float32 only just tells from zero to ones beyond softplus's bend.
    dt_bias, Ds = torch.empty(sets, D).uniform_(-18, 4), torch.randn(sets, D)
    for shape in ((1, 5, 8), (3, 4, 3), (2, 1, 1)):
        x = torch.randn(*shape, D)
        inputs = (x, x_proj, dt_weight, dt_bias, A, Ds)
        feed = {key: tensor.numpy() for key, tensor in zip(INPUTS, inputs, strict=True)}
        (y,) = session.run(None, feed)
        x, x_proj_, dt_weight_, dt_bias_, A_, Ds_ = (tensor.double() for tensor in inputs)
        x_dbl = torch.einsum('bhwd,pmd->bhwpm', x, x_proj_)
        expected = visual_scan(
            x, x_dbl, dt_weight_, A_, Ds_, routes=routes, step=step, dt_bias=dt_bias_, backend='reference'
        )
        np.testing.assert_allclose(y, expected, rtol=1e-5, atol=2e-6 * expected.abs().mean().item())


@pytest.mark.parametrize('name', CASES)
def test_equals_the_operator(name: str) -> None:
    check_against_the_operator(make_session(*CASES[name]), *CASES[name])


def test_small_time_steps_are_exact() -> None:
    # A single token: y = C . B * softplus(bias) * x, with what runtimes' own Softplus would round to zero.
    session = make_session(CASES['backward'][0], 1)
    x_proj = torch.zeros(1, 3, 1)
    x_proj[0, 1:] = 1
    bias = torch.tensor([[-20.0]])
    one = torch.ones(1, 1, 1)
    feed = dict(zip(INPUTS, (one[None], x_proj, one * 0, bias, -one, one[0] * 0), strict=True))
    (y,) = session.run(None, {name: tensor.numpy() for name, tensor in feed.items()})
    assert y.item() == pytest.approx(np.log1p(np.exp(-20.0)), rel=1e-6)
