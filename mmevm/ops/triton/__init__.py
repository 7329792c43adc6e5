"""The operators as Triton kernels, for GPUs without the compiled ones, under ``torch.ops.mmevm_triton``.

Triton itself is imported when one of them first runs.
"""

import ast
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from mmevm.ops.autograd import register

NAMESPACE = 'mmevm_triton'

_SCHEMAS: list[str] = ast.literal_eval(f'[{Path(__file__).parents[1].joinpath("schemas.inc").read_text()}]')
"""Those of the extension, which includes the same file."""

_library = torch.library.Library(NAMESPACE, 'DEF')


def _register(name: str, module: str, function: str) -> None:
    def run(*arguments: Any) -> tuple[torch.Tensor, ...]:
        return getattr(import_module(f'mmevm.ops.triton.{module}'), function)(*arguments)

    _library.define(next(schema for schema in _SCHEMAS if schema.startswith(f'{name}(')))
    for key in ('CUDA', 'CPU'):  # on the CPU, Triton's interpreter runs them
        _library.impl(name, run, key)


for _scan in ('selective_scan', 'visual_scan'):
    _register(_scan, _scan, 'forward')
    _register(f'_{_scan}_backward', _scan, 'backward')
register(NAMESPACE)
