"""Peak memory of a training step, with the real scan and with the scan replaced by a no-op.

The step is the backbone's forward pass in training mode, the sum of its maps' means as loss, and the backward pass
into fresh gradients. The no-op returns the scan's input, through which gradients pass.

The peak is that of torch's CPU allocator: torch.profiler records every allocation and every release (profile_memory),
and the peak is the maximum of their running sum; parameters, buffers and images, which are allocated before, are added.
Unlike the process's memory, it is the same in every run, down to the byte. It excludes what does not come from torch's
allocator, such as oneDNN's scratch memory, which the two steps have in common. As a check, the growth of the process's
peak resident memory (``ru_maxrss``, Linux and macOS) over a step is measured too, before the profiler is started.

Each measurement runs in a process of its own, after a small warm-up step.
"""

import argparse
import json
import resource
import runpy
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

try:
    import networks
    import timing
    import torch
    from torch import Tensor, nn

    from mmevm.backbones import EfficientVMamba
    from mmevm.layers import ES2D
except ModuleNotFoundError as error:
    runpy.run_path(str(Path(__file__).parents[1] / 'tools/_interpreter.py'))['stop'](error)

SCANS = ('noop', 'real')
WARMUP_SIZE = 64
MIB = 2**20

COLUMNS = {
    'scan': '{scan}',
    'peak, MiB': '{peak_mib:.1f}',
    'of it parameters and images': '{resident_mib:.1f}',
    '× no-op': '{ratio:.3f}',
    'growth of the resident memory, MiB': '{rss_mib:.0f}',
}


class NoScan(ES2D):
    """A mixer that projects, but does not scan."""

    def scan(self, x: Tensor) -> Tensor:
        """Args: x (Tensor[B, H, W, D]). Returns: Tensor[B, H, W, D], the same tensor."""
        self.project(x)
        return x


def without_scan(model: nn.Module) -> nn.Module:
    """Take the scans out of a network, in place."""
    for module in model.modules():
        if type(module) is ES2D:
            module.__class__ = NoScan
    return model


def training_step(model: EfficientVMamba, images: Tensor) -> None:
    """Run the forward and the backward pass, without an optimizer."""
    model.zero_grad(set_to_none=True)
    sum(y.mean() for y in model(images)).backward()


def peak_rss() -> int:
    """Return the largest resident memory of this process so far, in bytes."""
    # Linux counts in KiB, macOS in bytes.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == 'darwin' else 1024)


def allocator_peak(run: Callable[[], object]) -> int:
    """Largest sum of what is allocated and not yet released while a function runs, in bytes."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profiler:
        run()
    events = [e for e in profiler.profiler.kineto_results.events() if e.name() == '[memory]']
    held = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak


def measure(args: argparse.Namespace) -> timing.Row:
    """Measure one step, in a process that does nothing else."""
    model = EfficientVMamba(args.arch).train()
    if args.measure == 'noop':
        without_scan(model)
    training_step(model, torch.randn(args.batch, 3, WARMUP_SIZE, WARMUP_SIZE))
    model.zero_grad(set_to_none=True)
    images = torch.randn(args.batch, 3, args.size, args.size)
    before = peak_rss()
    training_step(model, images)
    rss = peak_rss() - before
    model.zero_grad(set_to_none=True)  # their release is not the step's
    step = allocator_peak(partial(training_step, model, images))
    held = networks.resident(model, images)
    return {'scan': args.measure, 'resident': held, 'step': step, 'peak': held + step, 'rss': rss}


def measure_apart(scan: str) -> timing.Row:
    """Run :func:`measure` in a fresh process with this one's options.

    Raises:
        RuntimeError: If that process fails; the message is what it wrote.
    """
    command = [sys.executable, str(Path(__file__).resolve()), *sys.argv[1:], '--measure', scan]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f'the step with the {scan} scan failed ({done.returncode}):\n{done.stderr}')
    return json.loads(done.stdout.splitlines()[-1])


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--arch', default='tiny', help='tiny, small or base (default: %(default)s)')
    parser.add_argument('--size', type=int, default=512, help='image side (default: %(default)s)')
    parser.add_argument('--batch', type=int, default=2, help='images (default: %(default)s)')
    parser.add_argument('--threads', type=int, help="threads (default: torch's choice)")
    parser.add_argument('--out', type=Path, default=timing.RESULTS, help='folder for the results')
    parser.add_argument('--measure', choices=SCANS, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    """Measure, print and write memory.md and memory.json."""
    args = parse_args()
    timing.set_threads(args.threads)
    if args.measure:
        print(json.dumps(measure(args)))
        return
    rows = [measure_apart(scan) for scan in SCANS]
    for row in rows:
        row['ratio'] = row['peak'] / rows[0]['peak']
        row |= {f'{key}_mib': row[key] / MIB for key in ('peak', 'resident', 'rss')}
    title = f'Peak memory of a training step, EVM {args.arch}, {args.size} × {args.size}, batch {args.batch}'
    note = f'With the real scan the step needs {rows[1]["ratio"]:.3f} times the memory of the step without a scan.'
    timing.save(args.out, 'memory', title, rows, COLUMNS, [note])


if __name__ == '__main__':
    main()
