"""The operators as Triton kernels, for GPUs without the compiled ones, under ``torch.ops.mmevm_triton``.

Triton itself is imported when one of them first runs.
"""

from importlib import import_module
from typing import Any

import torch

from mmevm.ops.autograd import register

NAMESPACE = 'mmevm_triton'

_SCHEMAS = """
selective_scan(Tensor u, Tensor delta, Tensor A, Tensor Bs, Tensor Cs, Tensor? Ds, Tensor? delta_bias,
    bool delta_softplus, bool save_states) -> (Tensor y, Tensor last_state, Tensor states)
_selective_scan_backward(Tensor dy, Tensor? dlast_state, Tensor u, Tensor delta, Tensor A, Tensor Bs, Tensor Cs,
    Tensor? Ds, Tensor? delta_bias, Tensor states, bool delta_softplus)
    -> (Tensor du, Tensor ddelta, Tensor dA, Tensor dBs, Tensor dCs, Tensor dDs, Tensor ddelta_bias)
visual_scan(Tensor x, Tensor x_dbl, Tensor dt_weight, Tensor? dt_bias, Tensor A, Tensor? Ds, int step,
    int[] routes, bool save_states) -> (Tensor y, Tensor states)
_visual_scan_backward(Tensor dy, Tensor x, Tensor x_dbl, Tensor dt_weight, Tensor? dt_bias, Tensor A, Tensor? Ds,
    Tensor states, int step, int[] routes)
    -> (Tensor dx, Tensor dx_dbl, Tensor ddt_weight, Tensor ddt_bias, Tensor dA, Tensor dDs)
"""
"""Those of csrc/library.cpp."""

_library = torch.library.Library(NAMESPACE, 'DEF')


def _register(name: str, module: str, function: str) -> None:
    def run(*arguments: Any) -> tuple[torch.Tensor, ...]:
        return getattr(import_module(f'mmevm.ops.triton.{module}'), function)(*arguments)

    schemas = _SCHEMAS.replace('\n    ', ' ').strip().splitlines()
    _library.define(next(schema for schema in schemas if schema.startswith(f'{name}(')))
    for key in ('CUDA', 'CPU'):  # on the CPU, Triton's interpreter runs them
        _library.impl(name, run, key)


for _scan in ('selective_scan', 'visual_scan'):
    _register(_scan, _scan, 'forward')
    _register(f'_{_scan}_backward', _scan, 'backward')
register(NAMESPACE)
