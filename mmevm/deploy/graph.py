"""From a PyTorch module to an ONNX model for images of any size and number."""

import logging
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from onnxscript import optimizer
from torch import nn

from mmevm.deploy import fused, resizing
from mmevm.deploy.boxes import TRANSLATIONS as BOX_TRANSLATIONS
from mmevm.deploy.functions import DOMAIN, FUNCTIONS, OPSET
from mmevm.deploy.layers import TRANSLATIONS, exportable
from mmevm.errors import UsageError

INPUT = 'images'
AXES = {0: 'batch', 2: 'height', 3: 'width'}
# No map of it has a side of one cell, which a tracer would take for a constant, and no two sides of a map are equal.
_SAMPLE = (2, 352, 480)

# Of constants that are computed here once, whatever their size, instead of by each runtime.
_FOLDING: dict[str, Any] = {'input_size_limit': 1 << 30, 'output_size_limit': 1 << 30}


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence PyTorch's and onnxscript's notes about their own code."""
    loggers = [logging.getLogger(name) for name in ('torch', 'torch.__trace', 'onnxscript', 'onnx_ir')]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextmanager
def _tracing(further: Sequence[tuple[Any, str, Any]] = ()) -> Iterator[None]:
    if not hasattr(torch.export, 'Dim') or not hasattr(torch.export.Dim, 'AUTO'):
        raise UsageError(f'Exporting needs torch 2.6 or newer, this is {torch.__version__}.')
    # With sizes that are symbols, looking up its cache takes longer than PyTorch's fake tensors take without.
    config = torch._dynamo.config.patch(fake_tensor_cache_enabled=False)
    with _quiet(), torch.no_grad(), exportable(further), config:
        yield


def _trace(module: nn.Module, channels: int, dtype: torch.dtype, size: tuple[int, int] | None) -> Any:
    batch, *sample = _SAMPLE
    images = torch.zeros(batch, channels, *(size or sample), dtype=dtype)
    axes = dict.fromkeys(AXES if size is None else [0], torch.export.Dim.AUTO)
    return torch.export.export(module, (images,), dynamic_shapes=(axes,), strict=False)


def to_program(
    module: nn.Module,
    channels: int = 3,
    dtype: torch.dtype = torch.float32,
    size: tuple[int, int] | None = None,
) -> Any:
    """Export a module in evaluation mode to a ``torch.export.ExportedProgram``; see :func:`to_onnx`."""
    try:
        with _tracing():
            return _trace(module, channels, dtype, size)
    except UsageError:
        raise
    except Exception as error:  # of any layer
        raise UsageError(f'This model cannot be exported: {_cause(error)}') from error


def to_onnx(
    module: nn.Module,
    outputs: Sequence[str],
    channels: int = 3,
    dtype: torch.dtype = torch.float32,
    size: tuple[int, int] | None = None,
) -> ir.Model:
    """Export a module in evaluation mode.

    Args:
        module (nn.Module): Takes images and returns a tuple of tensors.
        outputs (Sequence[str]): Their names.
        channels (int): Of the images.
        dtype (torch.dtype): Of the images.
        size (tuple[int, int], optional): Height and width, which are then fixed.

    Returns:
        onnx_ir.Model: Its input is ``images`` [batch, channels, height, width]; an axis on whose size the module
        depends is fixed.

    Raises:
        UsageError: PyTorch cannot export the module.
    """
    translations = TRANSLATIONS | BOX_TRANSLATIONS | fused.TRANSLATIONS | resizing.TRANSLATIONS
    try:
        with _tracing([*fused.SUBSTITUTES, *resizing.SUBSTITUTES]):
            program = _trace(module, channels, dtype, size)
            exported = torch.onnx.export(
                program, custom_translation_table=translations, opset_version=OPSET, optimize=False, verbose=False
            )
            assert exported is not None
            _simplify(exported.model)
    except UsageError:
        raise
    except Exception as error:  # of any layer, and PyTorch wraps it in errors of its own
        raise UsageError(f'This model cannot be exported: {_cause(error)}') from error
    return _finish(exported.model, outputs)


def _simplify(model: ir.Model) -> None:
    """Compute what is constant, fold norms into convolutions, and keep maps in the layout of convolutions."""
    optimizer.fold_constants_ir(model, **_FOLDING)
    _split_weights(model)
    optimizer.optimize_ir(model, num_iterations=1, **_FOLDING)
    ir.passes.common.IdentityEliminationPass()(model)
    _pool_globally(model)
    _convolve_linear(model)
    optimizer.remove_unused_nodes(model)


def _value(value: ir.Value | None) -> np.ndarray | None:
    tensor = None if value is None else ir.convenience.get_const_tensor(value)
    return None if tensor is None else tensor.numpy()


def _constant(model: ir.Model, name: str, value: np.ndarray) -> ir.Value:
    tensor = ir.tensor(np.ascontiguousarray(value), name=name)
    constant = ir.Value(name=name, shape=ir.Shape(value.shape), type=ir.TensorType(tensor.dtype), const_value=tensor)
    model.graph.register_initializer(constant)
    return constant


def _split_weights(model: ir.Model) -> None:
    """Split weights here, which the optimizer leaves to the runtime."""
    for node in list(model.graph):
        weight = _value(node.inputs[0]) if node.op_type == 'Split' else None
        if weight is None or len(node.inputs) > 1:  # sizes that differ
            continue
        parts = np.array_split(weight, len(node.outputs), axis=node.attributes.get_int('axis', 0))
        if len({part.shape for part in parts}) == 1:
            for output, part in zip(node.outputs, parts, strict=True):
                output.replace_all_uses_with(_constant(model, str(output.name), part))
            model.graph.remove(node, safe=True)


def _pool_globally(model: ir.Model) -> None:
    """Name means over height and width what they are, so that runtimes keep the layout of their convolutions."""
    for node in model.graph:
        if node.op_type != 'ReduceMean' or node.attributes.get_int('keepdims', 1) == 0 or len(node.inputs) < 2:
            continue
        shape, axes = node.inputs[0].shape, node.inputs[1].const_value
        if shape is not None and axes is not None and len(shape) == 4 and {a % 4 for a in axes.numpy()} == {2, 3}:
            node.op_type = 'GlobalAveragePool'
            node.resize_inputs(1)
            node.attributes.clear()


def _convolve_linear(model: ir.Model) -> None:
    """Turn a linear layer whose map is then laid out channels first into a convolution, so that what follows fuses."""
    for node in list(model.graph):
        linear = node.inputs[0].producer() if node.op_type == 'Transpose' else None
        if linear is None or linear.op_type != 'MatMul' or list(node.attributes.get_ints('perm')) != [0, 3, 1, 2]:
            continue
        x, weight = linear.inputs
        value = _value(weight)
        if value is None or value.ndim != 2 or len(linear.outputs[0].uses()) > 1:
            continue
        kernel = _constant(model, f'{linear.outputs[0].name}_kernel', value.T[..., None, None])
        first = ir.node('Transpose', [x], {'perm': [0, 3, 1, 2]})
        conv = ir.node('Conv', [first.outputs[0], kernel])
        ir.convenience.replace_nodes_and_values(model.graph, node, [node], [first, conv], node.outputs, conv.outputs)
        model.graph.remove(linear, safe=True)


def _cause(error: BaseException) -> str:
    """Return the first line of the error that the others were raised from."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line for line in str(error).splitlines() if line.strip()]
    return f'{type(error).__name__}: {lines[0].strip()}' if lines else type(error).__name__


def _finish(model: ir.Model, outputs: Sequence[str]) -> ir.Model:
    """Name inputs, outputs and axes, add the scan's function, and drop traces of the source code."""
    (images,) = model.graph.inputs
    inner = [value for node in model.graph for value in node.outputs]
    for value in (*inner, *list(model.graph.initializers.values())):
        if value.name in (INPUT, *outputs):
            value.name = f'{value.name}.inner'
    images.name = INPUT
    for value, name in zip(model.graph.outputs, outputs, strict=True):
        value.name = name
    symbols = {str(_sizes(images)[axis]): name for axis, name in AXES.items() if axis not in fixed_axes(model)}
    pattern = re.compile('|'.join(rf'\b{symbol}\b' for symbol in symbols) or '(?!)')
    for value in (images, *model.graph.outputs):
        sizes = (str(size) if isinstance(size, ir.SymbolicDim) else size for size in _sizes(value))
        value.shape = ir.Shape(
            [pattern.sub(lambda match: symbols[match[0]], size) if isinstance(size, str) else size for size in sizes]
        )
    for node in model.graph.all_nodes():
        node.metadata_props.clear()
    for value in (*model.graph.inputs, *model.graph.outputs, *model.graph.initializers.values()):
        value.metadata_props.clear()
    model.metadata_props.clear()
    for name in {node.op_type for node in model.graph.all_nodes() if node.domain == DOMAIN}:
        function: Any = ir.from_proto((FUNCTIONS | fused.FUNCTIONS)[name].to_function_proto())
        model.functions[function.identifier()] = function
        model.opset_imports[DOMAIN] = 1
    return model


def _sizes(value: Any) -> ir.Shape:
    return value.shape


def fixed_axes(model: ir.Model) -> dict[int, int]:
    """Return the sizes of those of the input's axes :data:`AXES` that are fixed."""
    sizes = {axis: _sizes(model.graph.inputs[0])[axis] for axis in AXES}
    return {axis: size for axis, size in sizes.items() if isinstance(size, int)}
