"""Run one case of the atrous scan forward and backward a few times, for a profiler to look at.

    ncu --set full -k 'regex:scan_(forward|backward)_kernel' -c 4 -o scan python3 benchmarks/gpu_profile.py

Prints how the CUDA kernels split the scan, and nothing that was measured: that is the profiler's part.
"""

import argparse
import runpy
from pathlib import Path

try:
    import torch
    from gpu_operator import Case, backend_names, scan_inputs, split_of

    from mmevm.layers.mixers import ES2D
    from mmevm.ops import es2d_scan
except ModuleNotFoundError as error:
    runpy.run_path(str(Path(__file__).parents[1] / 'tools/_interpreter.py'))['stop'](error)

SPLIT = ('states', 'threads', 'slices of the states', 'blocks of channels', 'segments', 'bytes of shared memory')


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--shape', default='224x224x128', metavar='HxWxB', help='images (default: %(default)s)')
    parser.add_argument('--variant', default='tiny', help='of EfficientVMamba (default: %(default)s)')
    parser.add_argument('--stage', type=int, default=1, choices=(1, 2), help='default: %(default)s')
    parser.add_argument('--backend', help="default: the one that 'auto' takes")
    parser.add_argument('--calls', type=int, default=3, help='default: %(default)s')
    parser.add_argument('--device', default='cuda', help='default: %(default)s')
    args = parser.parse_args()
    if args.device == 'cuda' and not torch.cuda.is_available():
        parser.error('torch sees no CUDA device; --device cpu shows that the script works')
    return args


def main() -> None:
    """Run the case."""
    args = parse_args()
    device = torch.device(args.device)
    case = Case(args.variant, args.stage, *map(int, args.shape.split('x')))
    op = ES2D(case.channels).to(device)
    dtype = torch.float16 if device.type == 'cuda' else torch.bfloat16
    inputs = scan_inputs(op, torch.randn(case.batch, *case.size, op.d_inner, device=device, dtype=dtype))
    backend = args.backend or backend_names(device)[0]
    if device.type == 'cuda' and backend == 'compiled':
        for what in ('forward', 'backward'):
            split = split_of(inputs, what == 'backward')
            print(f'{what}:', ', '.join(f'{name} {n}' for name, n in zip(SPLIT, split, strict=True)))
    for _ in range(args.calls):
        y = es2d_scan(**inputs, backend=backend)
        torch.autograd.grad(y, list(inputs.values()), torch.ones_like(y))
    print(f'{args.calls} calls with the {backend} backend, map {tuple(inputs["x"].shape)}')


if __name__ == '__main__':
    main()
