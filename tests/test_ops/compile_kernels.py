"""Compiles every Triton kernel as the operators would launch it, for a GPU that need not be there.

Run as a module, without TRITON_INTERPRET: ``python -m tests.test_ops.compile_kernels cuda 80 32``. Prints one line of
JSON per kernel. With ``record`` behind, it prints what would be compiled for maps of several sizes.
"""

import json
import sys
from collections.abc import Callable
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from mmevm.ops import es2d_routes
from mmevm.ops.routes import flatten
from mmevm.ops.triton import launch

from .samples import map_inputs, sequence_inputs

KERNELS = ('scan_fwd_kernel', 'carry_kernel', 'adjoint_kernel', 'scan_bwd_kernel')
POINTERS = {torch.float64: '*fp64', torch.float32: '*fp32', torch.bfloat16: '*bf16', torch.int64: '*i64'}


class Compiler:
    """Stands in for a kernel: compiles it where it would be launched.

    Args:
        kernel (JITFunction): The kernel.
        target (GPUTarget): What to compile for.
    """

    def __init__(self, kernel: Any, target: GPUTarget) -> None:
        self.kernel, self.target = kernel, target

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
        return self.compile

    def specialise(self, arguments: dict[str, Any]) -> tuple[dict[str, str], dict[str, Any], dict]:
        """Return the types, constants and divisible arguments that Triton compiles for."""
        signature, constants, attributes = {}, {}, {}
        for i, parameter in enumerate(self.kernel.params):
            value = arguments[parameter.name]
            if value is None or value is True or value is False or parameter.is_constexpr:
                constants[parameter.name], kind, aligned = value, 'constexpr', False
            elif isinstance(value, torch.Tensor):
                kind, aligned = POINTERS[value.dtype], value.data_ptr() % 16 == 0
            elif value == 1 and not parameter.do_not_specialize:
                constants[parameter.name], kind, aligned = value, 'constexpr', False
            else:
                kind, aligned = 'i32', value % 16 == 0 and not parameter.do_not_specialize
            signature[parameter.name] = kind
            if aligned:
                attributes[(i,)] = [['tt.divisibility', 16]]
        return signature, constants, attributes

    def compile(self, num_warps: int, **arguments: Any) -> None:
        """Compiles for these arguments, specialised as Triton does, and prints what came out."""
        signature, constants, attributes = self.specialise(arguments)
        source = ASTSource(fn=self.kernel, signature=signature, constexprs=constants, attrs=attributes)
        compiled = triton.compile(source, target=self.target, options={'num_warps': num_warps})
        found = {'kernel': compiled.metadata.name, 'shared': compiled.metadata.shared, 'num_warps': num_warps}
        binary = compiled.asm['cubin' if self.target.backend == 'cuda' else 'hsaco']
        print(json.dumps(found | {'bytes': len(binary), 'float32': 'f32' in compiled.asm['ttir']}))


class Recorder(Compiler):
    """Prints what a kernel would be compiled for, and compiles nothing."""

    def compile(self, num_warps: int, **arguments: Any) -> None:
        """Prints one line."""
        print(json.dumps([self.kernel.__name__, num_warps, str(self.specialise(arguments))]))


def run_sequence(**kwargs: Any) -> None:
    """Forward and backward pass of the one-dimensional scan."""
    i = sequence_inputs(B=1, L=300, **kwargs)
    args = [i[k] for k in ('u', 'delta', 'A', 'Bs', 'Cs', 'Ds', 'delta_bias')]
    y, last_state, states = torch.ops.mmevm_triton.selective_scan(*args, True, True)
    torch.ops.mmevm_triton._selective_scan_backward(y, last_state, *args, states, True)


def run_map(H: int = 35, W: int = 35, **kwargs: Any) -> None:
    """Forward and backward pass of the scan over a map."""
    i = map_inputs(B=1, H=H, W=W, **kwargs)
    args = [i[k] for k in ('x', 'x_dbl', 'dt_weight', 'dt_bias', 'A', 'Ds')]
    y, states = torch.ops.mmevm_triton.visual_scan(*args, 2, flatten(es2d_routes(2)), True)
    torch.ops.mmevm_triton._visual_scan_backward(y, *args, states, 2, flatten(es2d_routes(2)))


def main(backend: str, architecture: str, warp_size: int) -> None:
    """Compiles both operators' kernels for several kinds of data, or records what maps of several sizes ask for."""
    target = GPUTarget(backend, int(architecture) if backend == 'cuda' else architecture, warp_size)
    launch.warp_size = lambda device: warp_size
    launch.programs_wanted = lambda device: 10**6  # so that there are segments
    record = len(sys.argv) > 4
    for name in KERNELS:
        setattr(launch, name, (Recorder if record else Compiler)(getattr(launch, name), target))
    if record:
        for H, W in ((48, 64), (50, 67), (33, 97)):
            run_map(H, W, D=96, N=16, R=6)
        return
    run_map(D=96, N=16, dtype=torch.bfloat16)
    run_map(D=96, N=1)
    run_sequence(D=96, N=2, dtype=torch.float64)


if __name__ == '__main__':
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
