"""Runs both operators, forward and backward, on small shapes: what compute-sanitizer looks at.

    compute-sanitizer --tool memcheck --error-exitcode 1 python -m tests.gpu.sanitize compiled

Without a backend's name it runs all that serve the device. Results are compared with the reference, too, so that a
sanitizer that reports nothing has seen kernels that worked.
"""

import sys
from collections.abc import Sequence

import torch

from mmevm.ops import es2d_routes

from ..test_ops.samples import SS2D, map_inputs, sequence_inputs
from .comparison import check, map_scan, sequence_scan
from .device import DEVICE, available, missing


def main(wanted: Sequence[str] = ()) -> int:
    """Returns 1 when a wanted backend does not serve the device, or none does."""
    for reason in filter(None, map(missing, wanted)):
        print(f'nothing to look at: {reason}', file=sys.stderr)
        return 1
    names = wanted or available()
    for name in names:
        for dtype in (torch.float32, torch.float16):
            options = {'dtype': dtype, 'requires_grad': True}
            check(sequence_scan, sequence_inputs(B=2, D=24, L=67, G=4, **options), name)
            check(sequence_scan, sequence_inputs(B=1, D=5, L=300, N=3, **options), name)
            check(map_scan(es2d_routes(2), 2), map_inputs(B=2, H=15, W=9, D=40, **options), name)
            check(map_scan(SS2D, 1), map_inputs(B=1, H=5, W=7, D=20, P=4, **options), name)
        print(f'{name} kernels on {DEVICE}: 8 scans and their gradients equal the reference', flush=True)
    if not names:
        print(f'nothing to look at: no backend besides the reference serves {DEVICE} tensors', file=sys.stderr)
    return 0 if names else 1


if __name__ == '__main__':
    raise SystemExit(main(sys.argv[1:]))
