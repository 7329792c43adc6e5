"""From a PyTorch module to an ONNX model for images of any size and number."""

import logging
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import onnx_ir as ir
import torch
from onnxscript import optimizer
from torch import nn

from mmevm.deploy.boxes import TRANSLATIONS as BOX_TRANSLATIONS
from mmevm.deploy.functions import DOMAIN, OPSET, VisualScan
from mmevm.deploy.layers import TRANSLATIONS, exportable
from mmevm.errors import UsageError

INPUT = 'images'
AXES = {0: 'batch', 2: 'height', 3: 'width'}
# No map of it has a side of one cell, which a tracer would take for a constant, and no two sides of a map are equal.
_SAMPLE = (2, 352, 480)


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


def to_onnx(
    module: nn.Module, outputs: Sequence[str], channels: int = 3, dtype: torch.dtype = torch.float32
) -> ir.Model:
    """Export a module in evaluation mode.

    Args:
        module (nn.Module): Takes images and returns a tuple of tensors.
        outputs (Sequence[str]): Their names.
        channels (int): Of the images.
        dtype (torch.dtype): Of the images.

    Returns:
        onnx_ir.Model: Its input is ``images`` [batch, channels, height, width]; an axis on whose size the module
        depends is fixed.

    Raises:
        UsageError: PyTorch cannot export the module.
    """
    if not hasattr(torch.export, 'Dim') or not hasattr(torch.export.Dim, 'AUTO'):
        raise UsageError(f'Exporting needs torch 2.6 or newer, this is {torch.__version__}.')
    batch, height, width = _SAMPLE
    images = torch.zeros(batch, channels, height, width, dtype=dtype)
    axes = dict.fromkeys(AXES, torch.export.Dim.AUTO)
    # With sizes that are symbols, looking up its cache takes longer than PyTorch's fake tensors take without.
    config = torch._dynamo.config.patch(fake_tensor_cache_enabled=False)
    try:
        with _quiet(), torch.no_grad(), exportable(), config:
            program = torch.export.export(module, (images,), dynamic_shapes=(axes,), strict=False)
            translations = TRANSLATIONS | BOX_TRANSLATIONS
            exported = torch.onnx.export(
                program, custom_translation_table=translations, opset_version=OPSET, optimize=False, verbose=False
            )
            assert exported is not None
            optimizer.optimize_ir(exported.model)
    except Exception as error:  # of any layer, and PyTorch wraps it in errors of its own
        raise UsageError(f'This model cannot be exported: {_cause(error)}') from error
    return _finish(exported.model, outputs)


def _cause(error: BaseException) -> str:
    """Return the first line of the error that the others were raised from."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line for line in str(error).splitlines() if line.strip()]
    return f'{type(error).__name__}: {lines[0].strip()}' if lines else type(error).__name__


def _finish(model: ir.Model, outputs: Sequence[str]) -> ir.Model:
    """Name inputs, outputs and axes, add the scan's function, and drop traces of the source code."""
    (images,) = model.graph.inputs
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
    if any(node.domain == DOMAIN for node in model.graph.all_nodes()):
        function: Any = ir.from_proto(VisualScan.to_function_proto())
        model.functions[function.identifier()] = function
        model.opset_imports[DOMAIN] = 1
    return model


def _sizes(value: Any) -> ir.Shape:
    return value.shape


def fixed_axes(model: ir.Model) -> dict[int, int]:
    """Return the sizes of those of the input's axes :data:`AXES` that are fixed."""
    sizes = {axis: _sizes(model.graph.inputs[0])[axis] for axis in AXES}
    return {axis: size for axis, size in sizes.items() if isinstance(size, int)}
