"""The fused passes of :mod:`mmevm.ops.passes` in ONNX: a node each, and a function that says what it means.

While a model is exported, its layers call the substitutes here. In the program that PyTorch traces they are operators
without an implementation, which are then translated to nodes.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from onnx.defs import OpSchema
from onnxscript import FLOAT, opset18, script
from torch import Tensor, nn

from mmevm.deploy.functions import MMEVM, register, require_float
from mmevm.layers import basic, blocks, mixers, vim
from mmevm.ops import passes
from mmevm.ops.passes import NormStatistics

op: Any = opset18


@script(MMEVM, default_opset=op)
def DepthwiseSilu(x: FLOAT, weight: FLOAT, bias: FLOAT, pads: Sequence[int], group: int) -> FLOAT:
    """Depthwise convolution of a map [B, H, W, C] that keeps its size, and SiLU."""
    y = op.Conv(op.Transpose(x, perm=[0, 3, 1, 2]), weight, bias, pads=pads, group=group)
    return op.Transpose(y * op.Sigmoid(y), perm=[0, 2, 3, 1])


@script(MMEVM, default_opset=op)
def DepthwiseGelu(x: FLOAT, weight: FLOAT, bias: FLOAT, pads: Sequence[int], group: int) -> FLOAT:
    """Depthwise convolution of a map [B, H, W, C] that keeps its size, and GELU."""
    y = op.Conv(op.Transpose(x, perm=[0, 3, 1, 2]), weight, bias, pads=pads, group=group)
    # In the order that runtimes know as one operator.
    root, one, half = (
        op.Constant(value_float=1.4142135623730951),
        op.Constant(value_float=1.0),
        op.Constant(value_float=0.5),
    )
    return op.Transpose(y * (op.Erf(y / root) + one) * half, perm=[0, 2, 3, 1])


@script(MMEVM, default_opset=op)
def GatedNorm(x: FLOAT, gate: FLOAT, weight: FLOAT, bias: FLOAT, epsilon: float) -> FLOAT:
    """``layer_norm(x) * silu(gate)``, over the last axis."""
    return op.LayerNormalization(x, weight, bias, axis=-1, epsilon=epsilon) * (gate * op.Sigmoid(gate))


@script(MMEVM, default_opset=op)
def NormMean(x: FLOAT, weight: FLOAT, bias: FLOAT, epsilon: float) -> FLOAT:
    """Mean of ``layer_norm(x)`` over each image: [B, H, W, C] to [B, 1, 1, C]."""
    return op.ReduceMean(
        op.LayerNormalization(x, weight, bias, axis=-1, epsilon=epsilon), op.Constant(value_ints=[1, 2])
    )


@script(MMEVM, default_opset=op)
def RmsNorm(x: FLOAT, weight: FLOAT, epsilon: float) -> FLOAT:
    """Root mean square norm over the last axis."""
    squares = op.ReduceMean(x * x, op.Constant(value_ints=[-1]))
    return x / op.Sqrt(squares + op.Constant(value_float=epsilon)) * weight


@script(MMEVM, default_opset=op)
def GatedMean(a: FLOAT, b: FLOAT, gate: FLOAT) -> FLOAT:
    """``(a + b) / 2 * silu(gate)``."""
    return (a + b) * op.Constant(value_float=0.5) * (gate * op.Sigmoid(gate))


@script(MMEVM, default_opset=op)
def ScaledSum(x: FLOAT, a: FLOAT, scale_a: FLOAT, b: FLOAT, scale_b: FLOAT) -> FLOAT:
    """``x + a * scale_a + b * scale_b`` for maps [B, H, W, C] and scales [B, 1, 1, C]."""
    return x + a * scale_a + b * scale_b


FUNCTIONS: dict[str, Any] = {
    function.name: function
    for function in (DepthwiseSilu, DepthwiseGelu, GatedNorm, NormMean, RmsNorm, GatedMean, ScaledSum)
}
"""What the nodes mean, by their name."""

_EPSILON = {'epsilon': OpSchema.AttrType.FLOAT}
_CONV = {'pads': OpSchema.AttrType.INTS, 'group': OpSchema.AttrType.INT}
for _name, _function in FUNCTIONS.items():
    _proto = _function.to_function_proto()
    register(_name, _proto.input, ['y'], {key: (_EPSILON | _CONV)[key] for key in _proto.attribute})

_library = torch.library.Library('mmevm_deploy', 'FRAGMENT')


def define(name: str, arguments: str, fake: Callable[..., Tensor] = lambda x, *_: x.new_empty(x.shape)) -> None:
    """Define an operator of exported models that has no implementation, and what it returns while tracing."""
    _library.define(f'{name}({arguments}) -> Tensor')
    torch.library.register_fake(f'mmevm_deploy::{name}', fake, lib=_library)


define('depthwise_conv', 'Tensor x, Tensor weight, Tensor bias, str activation, int[] pads')
define('gated_norm', 'Tensor x, Tensor gate, Tensor weight, Tensor bias, float eps')
define(
    'norm_mean',
    'Tensor x, Tensor weight, Tensor bias, float eps',
    lambda x, *_: x.new_empty(x.shape[0], 1, 1, x.shape[3]),
)
define('rms_norm', 'Tensor x, Tensor weight, float eps')
define('gated_mean', 'Tensor a, Tensor b, Tensor gate')
define('scaled_sum', 'Tensor x, Tensor a, Tensor scale_a, Tensor b, Tensor scale_b')

_traced = torch.ops.mmevm_deploy


def _depthwise_conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    norm: NormStatistics | None = None,
    activation: str | None = None,
    before: tuple[int, int] = (1, 1),
    after: tuple[int, int] = (1, 1),
    flip: bool = False,
) -> Tensor:
    if activation not in ('silu', 'gelu') or not passes.serves(before, after):
        return passes.depthwise_conv(x, weight, bias, norm, activation, before, after, flip)
    weight, bias = passes.fold(weight, bias, norm, flip)
    bias = weight.new_zeros(weight.shape[0]) if bias is None else bias
    return _traced.depthwise_conv(x, weight, bias, activation, [*before, *after])


def _gated_norm(y: Tensor, gate: Tensor, norm: nn.LayerNorm) -> Tensor:
    return _traced.gated_norm(y, gate, norm.weight, norm.bias, norm.eps)


def _norm_mean(x: Tensor, norm: nn.LayerNorm) -> Tensor:
    return _traced.norm_mean(x, norm.weight, norm.bias, norm.eps)


def _scaled_sum(a: Tensor, scale_a: Tensor, b: Tensor, scale_b: Tensor, x: Tensor) -> Tensor:
    return _traced.scaled_sum(x, a, scale_a, b, scale_b)


_PASSES: dict[str, Any] = {
    'depthwise_conv': _depthwise_conv,
    'gated_norm_': _gated_norm,
    'norm_mean': _norm_mean,
    'rms_norm': _traced.rms_norm,
    'gated_mean_': _traced.gated_mean,
    'scaled_sum_': _scaled_sum,
}

SUBSTITUTES: list[tuple[Any, str, Any]] = [
    (module, name, substitute)
    for module in (basic, blocks, mixers, vim)
    for name, substitute in _PASSES.items()
    if hasattr(module, name)
]
"""Modules, the names in them, and what stands for those while a model is exported to ONNX."""


def _depthwise_node(x: Any, weight: Any, bias: Any, activation: str, pads: Sequence[int]) -> Any:
    require_float(x)
    make = {'silu': MMEVM.DepthwiseSilu, 'gelu': MMEVM.DepthwiseGelu}[activation]
    return make(x, weight, bias, pads=pads, group=weight.shape[0])


def _norm_node(name: str) -> Callable[..., Any]:
    def translate(x: Any, *others: Any) -> Any:
        require_float(x)
        *tensors, eps = others
        return getattr(MMEVM, name)(x, *tensors, epsilon=eps)

    return translate


def _node(name: str) -> Callable[..., Any]:
    def translate(*tensors: Any) -> Any:
        require_float(*tensors)
        return getattr(MMEVM, name)(*tensors)

    return translate


TRANSLATIONS: dict[Any, Any] = {
    _traced.depthwise_conv.default: _depthwise_node,
    _traced.gated_norm.default: _norm_node('GatedNorm'),
    _traced.norm_mean.default: _norm_node('NormMean'),
    _traced.rms_norm.default: _norm_node('RmsNorm'),
    _traced.gated_mean.default: _node('GatedMean'),
    _traced.scaled_sum.default: _node('ScaledSum'),
}
"""For ``torch.onnx.export``'s ``custom_translation_table``."""
