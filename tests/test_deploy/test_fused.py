"""The nodes of fused passes, by their functions and by the library's kernels, against their formulas in PyTorch."""

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from onnx import TensorProto, helper
from torch import Tensor

from mmevm.deploy.functions import DOMAIN
from mmevm.deploy.fused import FUNCTIONS
from mmevm.layers import EVSSBlock
from mmevm.ops import passes
from tests.test_deploy.test_library import with_kernels

C, EPS = 19, 1e-5  # no multiple of a register


def maps(count: int = 1) -> tuple[Tensor, ...]:
    return tuple(torch.randn(2, 5, 7, C) for _ in range(count))


def vectors(count: int) -> tuple[Tensor, ...]:
    return tuple(torch.randn(C) for _ in range(count))


def normed(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.layer_norm(x, (C,), weight, bias, EPS)


def convolved(activation: str, before: tuple[int, int], after: tuple[int, int]) -> Callable[..., Tensor]:
    return lambda x, weight, bias: passes.depthwise_conv(x, weight, bias, None, activation, before, after)


SCALES = torch.randn(2, 1, 1, C)
CASES: dict[str, tuple[str, Callable[[], tuple[Tensor, ...]], Callable[..., Tensor], dict[str, Any]]] = {
    'SiLU': (
        'DepthwiseSilu',
        lambda: (*maps(), torch.randn(C, 1, 3, 3), *vectors(1)),
        convolved('silu', (1, 1), (1, 1)),
        {'pads': [1, 1, 1, 1], 'group': C},
    ),
    'GELU': (
        'DepthwiseGelu',
        lambda: (*maps(), torch.randn(C, 1, 3, 3), *vectors(1)),
        convolved('gelu', (1, 1), (1, 1)),
        {'pads': [1, 1, 1, 1], 'group': C},
    ),
    'causal': (
        'DepthwiseSilu',
        lambda: (*maps(), torch.randn(C, 1, 1, 4), *vectors(1)),
        convolved('silu', (0, 3), (0, 0)),
        {'pads': [0, 3, 0, 0], 'group': C},
    ),
    'causal in reverse': (
        'DepthwiseSilu',
        lambda: (*maps(), torch.randn(C, 1, 1, 4), *vectors(1)),
        convolved('silu', (0, 0), (0, 3)),
        {'pads': [0, 0, 0, 3], 'group': C},
    ),
    'GatedNorm': (
        'GatedNorm',
        lambda: (*maps(2), *vectors(2)),
        lambda x, gate, weight, bias: normed(x, weight, bias) * F.silu(gate),
        {'epsilon': EPS},
    ),
    'NormMean': (
        'NormMean',
        lambda: (*maps(), *vectors(2)),
        lambda x, weight, bias: normed(x, weight, bias).mean(dim=(1, 2), keepdim=True),
        {'epsilon': EPS},
    ),
    'RmsNorm': (
        'RmsNorm',
        lambda: (torch.randn(2, 11, C), *vectors(1)),
        lambda x, weight: F.rms_norm(x, (C,), weight, EPS),
        {'epsilon': EPS},
    ),
    'GatedMean': (
        'GatedMean',
        lambda: tuple(torch.randn(2, 11, C) for _ in range(3)),
        lambda a, b, gate: (a + b) / 2 * F.silu(gate),
        {},
    ),
    'ScaledSum': (
        'ScaledSum',
        lambda: (*maps(2), SCALES, *maps(), SCALES.neg()),
        lambda x, a, scale_a, b, scale_b: x + a * scale_a + b * scale_b,
        {},
    ),
}


def make_session(
    name: str, attributes: dict[str, Any], ranks: list[int], options: onnxruntime.SessionOptions | None = None
) -> onnxruntime.InferenceSession:
    """A session on a graph of one node."""
    function = FUNCTIONS[name].to_function_proto()
    inputs = [
        helper.make_tensor_value_info(key, TensorProto.FLOAT, [None] * rank)
        for key, rank in zip(function.input, ranks, strict=True)
    ]
    node = helper.make_node(name, function.input, ['y'], domain=DOMAIN, **attributes)
    outputs = [helper.make_tensor_value_info('y', TensorProto.FLOAT, [None] * ranks[0])]
    model = helper.make_model(
        helper.make_graph([node], 'pass', inputs, outputs),
        functions=[function],
        opset_imports=[helper.make_opsetid('', 18), helper.make_opsetid(DOMAIN, 1)],
        ir_version=10,
    )
    onnx.checker.check_model(model)
    return onnxruntime.InferenceSession(model.SerializeToString(), options)


def run(session: onnxruntime.InferenceSession, inputs: tuple[Tensor, ...]) -> np.ndarray:
    names = [value.name for value in session.get_inputs()]
    return session.run(None, {name: tensor.numpy() for name, tensor in zip(names, inputs, strict=True)})[0]


def test_every_node_is_tested() -> None:
    assert {node for node, *_ in CASES.values()} == set(FUNCTIONS)


@pytest.mark.parametrize('threads', [None, 1, 3])
@pytest.mark.parametrize('case', CASES)
def test_equals_the_formula(case: str, threads: int | None) -> None:
    name, sample, formula, attributes = CASES[case]
    inputs = sample()
    options = with_kernels(threads) if threads else None
    session = make_session(name, attributes, [tensor.dim() for tensor in inputs], options)
    expected = formula(*(tensor.double() for tensor in inputs))
    np.testing.assert_allclose(run(session, inputs), expected, rtol=1e-5, atol=2e-6 * expected.abs().mean().item())


@pytest.mark.parametrize('case', [case for case in CASES if case != 'NormMean'])  # the mean of nothing has no value
def test_empty_maps(case: str) -> None:
    name, sample, formula, attributes = CASES[case]
    inputs = tuple(tensor[:0] if tensor.shape[0] == 2 else tensor for tensor in sample())
    session = make_session(name, attributes, [tensor.dim() for tensor in inputs], with_kernels())
    assert run(session, inputs).shape == formula(*inputs).shape


@pytest.mark.parametrize('case', CASES)
def test_shapes_that_do_not_fit(case: str) -> None:
    name, sample, _, attributes = CASES[case]
    inputs = sample()
    session = make_session(name, attributes, [tensor.dim() for tensor in inputs], with_kernels())
    for i in range(1, len(inputs)):
        wrong = list(inputs)
        wrong[i] = torch.cat([inputs[i], inputs[i]])
        with pytest.raises(Exception, match=f'mmevm::{name}: `.*` must have'):
            run(session, tuple(wrong))


def test_kernels_without_a_pass() -> None:
    session = make_session('DepthwiseGelu', {'pads': [2] * 4, 'group': C}, [4, 4, 1], with_kernels())
    with pytest.raises(Exception, match=r'must have shape \[C, 1, 3, 3\]'):
        run(session, (*maps(), torch.randn(C, 1, 5, 5), *vectors(1)))


def test_layers_are_restored_after_an_export() -> None:
    from mmevm.deploy.graph import to_onnx

    class Block(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.block = EVSSBlock(3)

        def forward(self, images: Tensor) -> tuple[Tensor]:
            return (self.block(images.permute(0, 2, 3, 1)),)

    block = Block().eval()
    images = torch.randn(1, 3, 8, 8)
    with torch.no_grad():
        before = block(images)[0]
        to_onnx(block, ['y'])
        torch.testing.assert_close(block(images)[0], before, rtol=0, atol=0)
