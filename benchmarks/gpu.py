"""GPU benchmark: the atrous scan and the classifiers against the path composed of library calls.

One run measures: (a) the scan of the first two stages of EVM-T/S/B, forward and backward, fused and composed, and
the operator alone against the device's floors; (b) training steps, inference and peak memory of the classifiers and
timm's under AMP; (c) inference and its peak memory over resolution, with VMamba and Vim. ``--dry-run`` runs
everything at tiny sizes on the CPU, as a functional test; its numbers mean nothing.

Each table is written as soon as it is measured: <out>/<gpu>.json and .md, and two plots.
"""

import argparse
import contextlib
import itertools
import re
import runpy
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

try:
    import gpu_mamba
    import gpu_models
    import gpu_operator
    import gpu_report
    import plots
    import timing
    import torch
    from gpu_timing import COPY_BYTES, Rates, measure_rates

    from mmevm.doctor import distributions
    from mmevm.ops import backends
except ModuleNotFoundError as error:
    runpy.run_path(str(Path(__file__).parents[1] / 'tools/_interpreter.py'))['stop'](error)

# height x width x batch
SHAPES = ('224x224x128', '800x1344x2', '800x1344x1')
RESOLUTIONS = (224, 384, 512, 768, 1024)
RESOLUTION_MODELS = (
    'evm_tiny',
    'evm_small',
    'evm_base',
    'vmamba_tiny',
    'vmamba_tiny_s1l8',
    'vim_tiny',
    'regnety_008',
    'pvt_v2_b0',
    'mobilevit_xs',
    'mobilevit_s',
)

TINY = {
    'shapes': ('64x64x2', '72x56x1'),
    'variants': ['tiny'],
    'resolution': 64,
    'batch': 2,
    'resolutions': (64, 96),
    'repeats': 2,
    'models': ['evm_tiny', 'regnety_008', 'mobilevit_xs'],
    'resolution_models': ['evm_tiny', 'vmamba_tiny', 'vim_tiny', 'regnety_008'],
}
"""The options of a dry run."""


def gpu_name(device: torch.device) -> str:
    """Return a file name for the device: ``nvidia-h200``."""
    if device.type != 'cuda':
        return 'dry-run'
    return re.sub(r'[^a-z0-9]+', '-', torch.cuda.get_device_name(device).lower()).strip('-')


def driver() -> str:
    """Return the version of the GPU's driver, if nvidia-smi reports it."""
    command = ['nvidia-smi', '--query-gpu=driver_version', '--format=csv,noheader']
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        return subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout.split()[0]
    return 'unknown'


def describe(device: torch.device, rates: Rates, scan_text: str) -> dict[str, str]:
    """Return what the numbers depend on besides the code."""
    machine = {'GPU': 'none: a dry run on the CPU'}
    if device.type == 'cuda':
        properties = torch.cuda.get_device_properties(device)
        machine = {
            'GPU': f'{properties.name}, compute capability {properties.major}.{properties.minor}, '
            f'{properties.multi_processor_count} multiprocessors at {properties.clock_rate / 1e3:.0f} MHz at most, '
            f'{properties.total_memory / 2**30:.0f} GiB',
            'driver': driver(),
            'CUDA, cuDNN': f'{torch.version.cuda}, {torch.backends.cudnn.version()}',
        }
    floor = f'{rates.exponentials / 1e12:.2f} T/s' if rates.exponentials else 'not counted on a CPU'
    states = [s for s in backends.status() if s.device == device.type]
    return machine | {
        'copy, read and written': f'{rates.bandwidth / 1e9:.0f} GB/s',
        'exponentials of the special-function units': floor,
        'backends': '; '.join(f'{s.name}: {"available" if s.available else s.reason}' for s in states),
        'the composed path scans with': scan_text,
        'Triton': distributions('triton') or 'not installed',
        **timing.environment(),
    }


def notes(args: argparse.Namespace) -> list[str]:
    """Return how the numbers were made, for the reader."""
    warning = '**A dry run on the CPU at tiny sizes: it shows that the benchmark works, and its numbers mean nothing.**'
    return [
        *([warning] if args.dry_run else []),
        f'Medians of up to {args.repeats} rounds. Each round times every line of a table once, in shuffled order: '
        'after an untimed call, CUDA events around as many calls as fill 5 ms. Caches are as the last call left them. '
        'Maps and autocast are in half precision. "Composed" is the computation of the released code in library calls: '
        'routes copied out, projected by einsum, cast to float32, scanned, copied back. The first table includes the '
        "map's projection in both paths; the second is the operator alone, and its floor ratio is that of the replay "
        'of a CUDA graph.',
        'Floors: the map and its projections read once and the output written once, at the rate of a copy in the same '
        "run; one exponential per cell, channel and state, at the special-function units' rate. The larger binds.",
        'Training: cross-entropy, gradient scaling, fused AdamW. Peak memory is what torch allocates for one step, '
        "or one inference: weights, optimizer and images included. timm's networks are given in both layouts; targets "
        'compare with the faster.',
    ]


class Benchmark:
    """The report of one run, and the tables that fill it.

    Args:
        args (argparse.Namespace): See :func:`parse_args`.
        device (torch.device): Where to measure.
    """

    def __init__(self, args: argparse.Namespace, device: torch.device) -> None:
        self.args, self.device, self.name, self.start = args, device, gpu_name(device), time.monotonic()
        self.dtype = torch.float16 if device.type == 'cuda' else torch.bfloat16
        self.scan, text = gpu_mamba.choose(args.mamba, device)
        self.rates = measure_rates(device, 2**24 if args.dry_run else COPY_BYTES)
        self.report: gpu_report.Report = {
            'title': 'Dry run' if args.dry_run else torch.cuda.get_device_name(device),
            'dry_run': args.dry_run,
            'complete': False,
            'notes': notes(args),
            'checks': gpu_report.read_checks(args.checks),
            'plots': {},
            'environment': describe(device, self.rates, text),
        }

    def save(self, what: str) -> None:
        """Evaluate what has been measured so far, and write it."""
        self.report['targets'] = gpu_report.judge(self.report)
        gpu_report.save(self.args.out, self.name, self.report)
        print(f'[{time.monotonic() - self.start:5.0f} s] {what}', flush=True)

    def plot(
        self, kind: str, draw: Callable[[Path, list[timing.Row], str], None], rows: list[timing.Row], text: str
    ) -> None:
        """Draw ``<gpu>_<kind>.png`` and name it in the report."""
        path = self.args.out / f'{self.name}_{kind}.png'
        draw(path, rows, f'{self.report["title"]}: {text}')
        self.report['plots'][text] = path.name

    def scans(self) -> None:
        """Measure the tables of the scan; save them after each size."""
        bench = gpu_operator.Bench(
            self.device, self.dtype, self.scan, self.rates, self.args.repeats, self.args.seconds / 60
        )
        self.report['paths'], self.report['backends'] = [], []
        for shape in self.args.shapes:
            for variant, stage in itertools.product(self.args.variants, (1, 2)):
                case = gpu_operator.Case(variant, stage, *map(int, shape.split('x')))
                row, lines = gpu_operator.measure_case(case, bench)
                self.report['paths'].append(row)
                self.report['backends'] += lines
            self.save(f'scans, {shape}')

    def classifiers(self) -> None:
        """Measure the tables of the classifiers, at one size and over sizes."""
        args = self.args
        setting = gpu_models.Setting(self.device, self.dtype, self.scan, args.repeats, args.seconds / 4)
        rows = gpu_models.measure_models(args.models, args.resolution, args.batch, setting)
        self.report['models'] = rows
        text = f'classifiers, {args.resolution} × {args.resolution}, batch {args.batch}'
        self.plot('throughput', plots.throughput, rows, text)
        self.save('classifiers')
        pixels = args.batch * args.resolution**2 // 2  # there are many networks, and GPU time is limited
        rows = gpu_models.measure_resolutions(args.resolution_models, args.resolutions, pixels, setting)
        self.report['resolution'] = rows
        self.plot('resolution', plots.over_resolution, rows, 'inference over resolution')
        self.report['complete'] = True
        self.save('resolutions')


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--shapes', nargs='+', default=SHAPES, metavar='HxWxB', help='scans (default: %(default)s)')
    parser.add_argument('--variants', nargs='+', default=['tiny', 'small', 'base'], help='default: all three')
    models = [*gpu_models.VARIANTS, *gpu_models.COUNTERPARTS]
    parser.add_argument('--models', nargs='+', default=models, help='classifiers (default: %(default)s)')
    parser.add_argument('--resolution', type=int, default=224, help='image side of the classifiers')
    parser.add_argument('--batch', type=int, default=128, help='images per batch of the classifiers')
    parser.add_argument('--resolutions', nargs='+', type=int, default=RESOLUTIONS, help='default: %(default)s')
    parser.add_argument('--resolution-models', nargs='+', default=RESOLUTION_MODELS, help='default: %(default)s')
    parser.add_argument('--repeats', type=int, default=20, help='timed rounds (default: %(default)s)')
    parser.add_argument('--seconds', type=float, default=100, help='limit of all rounds together, but for warming up')
    parser.add_argument('--mamba', type=Path, help='folder where gpu_mamba.py built mamba_ssm')
    parser.add_argument('--checks', type=Path, help='phases of tools/gpu_check.sh, to be put into the report')
    parser.add_argument('--dry-run', action='store_true', help='tiny sizes on the CPU; needs --out')
    parser.add_argument('--out', type=Path, help=f'folder for the results (default: {timing.RESULTS})')
    args = parser.parse_args()
    if args.dry_run:
        if args.out is None:
            parser.error('a dry run writes no results of the project: give it a folder with --out')
        vars(args).update(TINY)
    elif not torch.cuda.is_available():
        parser.error('torch sees no CUDA device; --dry-run shows on the CPU that the benchmark works')
    args.out = args.out or timing.RESULTS
    return args


def main() -> None:
    """Measure, and write <gpu>.json, <gpu>.md and the plots."""
    args = parse_args()
    timing.set_threads(None)
    device = torch.device('cpu' if args.dry_run else 'cuda')
    torch.backends.cudnn.benchmark = True
    benchmark = Benchmark(args, device)
    benchmark.scans()
    benchmark.classifiers()
    print(gpu_report.markdown(benchmark.report))
    print(f'written: {args.out / benchmark.name}.json and .md')


if __name__ == '__main__':
    main()
