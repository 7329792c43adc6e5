"""Speed of the selective scans: every backend against the reference and against the exponential floor.

For one-dimensional scans and for the ES2D scans of the first two stages of each variant, batch 1, float32:

- inference: the forward pass without gradients;
- forward: the forward pass with gradients required for all inputs, which keeps what the backward pass needs;
- backward: ``torch.autograd.grad`` of its output for all inputs, the forward pass not included.

The floor is the time that the scan's H·W·D·N (or D·L·N) exponentials alone take this machine. The rate is measured in
the same rounds as the scans: ``torch.exp`` and ``torch.exp2`` of values in [-8, 0], on one thread, for 1024 and for
3072 of them, so that source and destination stay in the first-level cache; the difference of the two times is free of
the call's overhead. The faster function's rate, times the number of threads, is the machine's. Not in place: repeated
exponentials overflow soon, and vector libraries take a slow path for infinities.
"""

import argparse
import runpy
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

try:
    import timing
    import torch
    from torch import Tensor

    from mmevm.backbones import EfficientVMamba
    from mmevm.ops import backends, es2d_scan, selective_scan
except ModuleNotFoundError as error:
    runpy.run_path(str(Path(__file__).parents[1] / 'tools/_interpreter.py'))['stop'](error)

GROUPS = 4
D_STATE = 16
RATE_SIZES = (1024, 3072)
RATE_CALLS = 200
REFERENCE_REPEATS = 3

# The three passes of a backend that are timed, named in rows as in `COLUMNS`.
PASSES = ('inference', 'forward', 'backward')

COLUMNS = {
    'scan': '{scan}',
    'size': '{size}',
    'backend': '{backend}',
    'inference, ms': '{inference:.2f}',
    'forward, ms': '{forward:.2f}',
    'backward, ms': '{backward:.2f}',
    'backward / forward': '{backward_ratio:.2f}',
    'floor, ms': '{floor:.3f}',
    'inference / floor': '{inference_floor:.1f}',
    'backward / floor': '{backward_floor:.1f}',
    'inference, reference / this': '{inference_speedup:.0f}',
    'backward, reference / this': '{backward_speedup:.0f}',
}


@dataclass
class Case:
    """One scan with its inputs.

    Attributes:
        scan (str): What it is.
        size (str): Its sizes, for the reader.
        exponentials (int): How many its forward pass needs.
        inputs (list[Tensor]): What gradients are asked for.
        run (Callable): The scan, called with a backend's name and the inputs.
    """

    scan: str
    size: str
    exponentials: int
    inputs: list[Tensor]
    run: Callable[..., Tensor]


def sequence_case(D: int, N: int, L: int) -> Case:
    """Return a one-dimensional scan with random inputs of ordinary magnitude, B and C shared by groups of channels."""
    G = GROUPS if D % GROUPS == 0 else 1
    u, delta, Bs, Cs = torch.randn(1, D, L), torch.randn(1, D, L), torch.randn(1, G, N, L), torch.randn(1, G, N, L)
    A = -torch.arange(1.0, N + 1).repeat(D, 1)

    def run(backend: str, *inputs: Tensor) -> Tensor:
        *data, bias = inputs
        return selective_scan(*data, delta_bias=bias, delta_softplus=True, backend=backend)

    inputs = [u, delta, A, Bs, Cs, torch.ones(D), torch.full((D,), -4.0)]
    return Case('1-D', f'D {D}, N {N}, L {L}', D * N * L, inputs, run)


def es2d_case(variant: str, stage: int, height: int, width: int) -> Case:
    """Return the ES2D scan of a stage of a variant, for images of a given size."""
    C = EfficientVMamba.arch_zoo[variant]['dims'][stage - 1]
    D, N, R = 2 * C, D_STATE, -(-C // 16)
    H, W = height // 4, width // 4
    for _ in range(stage - 1):
        H, W = -(-H // 2), -(-W // 2)
    x, x_dbl = torch.randn(1, H, W, D), torch.randn(1, H, W, R + 2 * N)
    dt_weight = (2 * torch.rand(4, D, R) - 1) * R**-0.5
    A = -torch.arange(1.0, N + 1).repeat(4, D, 1)

    def run(backend: str, *inputs: Tensor) -> Tensor:
        *data, bias = inputs
        return es2d_scan(*data, dt_bias=bias, backend=backend)

    inputs = [x, x_dbl, dt_weight, A, torch.ones(4, D), torch.full((4, D), -4.0)]
    scan = f'ES2D {variant} stage {stage}, {height} × {width}'
    return Case(scan, f'H {H}, W {W}, D {D}, N {N}', H * W * D * N, inputs, run)


def rate_callables() -> dict[str, Callable[[], None]]:
    """Return exponentials on one thread, named ``<function> <numbers per call>``."""
    callables = {}
    for function in (torch.exp, torch.exp2):
        for size in RATE_SIZES:
            callables[f'{function.__name__} {size}'] = _exponentials(function, torch.linspace(-8, 0, size))
    return callables


def _exponentials(function: Callable, x: Tensor) -> Callable[[], None]:
    y = torch.empty_like(x)

    def run() -> None:
        for _ in range(RATE_CALLS):
            function(x, out=y)

    return run


def exponential_rates(times: dict[str, list[float]]) -> dict[str, float]:
    """Return exponentials per second and thread by function, from the best times of :func:`rate_callables`."""
    rates = {}
    for function in ('exp', 'exp2'):
        few, many = (min(times[f'{function} {size}']) for size in RATE_SIZES)
        # Two times within the clock's noise of each other are no measurement.
        if many > few:
            rates[function] = RATE_CALLS * (RATE_SIZES[1] - RATE_SIZES[0]) / ((many - few) / 1e3)
    return rates


def scan_callables(case: Case, backend: str) -> dict[str, Callable[[], object]]:
    """Return the three passes of one backend, named ``<backend> <pass>``."""
    inputs = [t.detach().requires_grad_() for t in case.inputs]
    y = case.run(backend, *inputs)
    dy = torch.randn_like(y)

    def inference() -> Tensor:
        with torch.inference_mode():
            return case.run(backend, *case.inputs)

    passes = (
        inference,
        lambda: case.run(backend, *inputs),
        lambda: torch.autograd.grad(y, inputs, dy, retain_graph=True),
    )
    return {f'{backend} {name}': function for name, function in zip(PASSES, passes, strict=True)}


def measure(case: Case, names: list[str], args: argparse.Namespace) -> tuple[list[timing.Row], dict[str, list[float]]]:
    """Time the backends on one scan, the exponentials in the same rounds; then the reference.

    Returns:
        tuple[list[Row], dict[str, list[float]]]: A line per backend, and the exponentials' times.
    """
    callables: dict[str, Callable[[], object]] = rate_callables()
    rates = list(callables)
    for name in names:
        if name != 'reference':
            callables |= scan_callables(case, name)
    times = timing.interleaved(callables, args.repeats, args.warmup)
    if case.exponentials > args.reference_limit:
        names = [name for name in names if name != 'reference']
    else:
        # Tens of times slower than the others: a few rounds of its own suffice.
        repeats = min(args.repeats, REFERENCE_REPEATS)
        times |= timing.interleaved(scan_callables(case, 'reference'), repeats, warmup=1, settle=0)
    rows = []
    for name in names:
        row = {'scan': case.scan, 'size': case.size, 'backend': name, 'exponentials': case.exponentials}
        for which in PASSES:
            summary = timing.summarise(times[f'{name} {which}'])
            row |= {which: summary['median'], f'{which}_p25': summary['p25'], f'{which}_p75': summary['p75']}
        rows.append(row)
    return rows, {name: times[name] for name in rates}


def add_ratios(rows: list[timing.Row], rate: float) -> None:
    """Compare the backward pass with the forward pass, everything with the floor, and backends with the reference."""
    reference = {row['scan'] + row['size']: row for row in rows if row['backend'] == 'reference'}
    for row in rows:
        row['floor'] = 1e3 * row['exponentials'] / rate
        row['backward_ratio'] = row['backward'] / row['forward']
        slow = reference.get(row['scan'] + row['size'])
        for which in PASSES:
            row[f'{which}_floor'] = row[which] / row['floor']
            if slow is not None:
                row[f'{which}_speedup'] = slow[which] / row[which]


def make_cases(args: argparse.Namespace) -> list[Callable[[], Case]]:
    """Yield what to measure; inputs are made one case at a time."""
    cases: list[Callable[[], Case]] = [partial(sequence_case, *_sizes(text)) for text in args.sequences]
    for text in args.images:
        for variant in args.variants:
            cases += [partial(es2d_case, variant, stage, *_sizes(text)) for stage in (1, 2)]
    return cases


def _sizes(text: str) -> list[int]:
    return [int(number) for number in text.split('x')]


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        '--sequences',
        nargs='*',
        default=['384x16x784', '768x16x196', '384x16x16384'],
        metavar='DxNxL',
        help='one-dimensional scans (default: %(default)s)',
    )
    parser.add_argument(
        '--images',
        nargs='*',
        default=['224x224', '800x1344'],
        metavar='HxW',
        help='image sizes for ES2D (default: %(default)s)',
    )
    parser.add_argument('--variants', nargs='+', default=['tiny', 'small', 'base'], help='default: all three')
    parser.add_argument(
        '--reference-limit',
        type=float,
        default=5e6,
        metavar='EXPONENTIALS',
        help='largest scan for the reference, which is slow (default: %(default).0e)',
    )
    timing.add_arguments(parser, repeats=30, warmup=3)
    return parser.parse_args()


def main() -> None:
    """Measure, print and write selective_scan.md and selective_scan.json."""
    args = parse_args()
    timing.set_threads(args.threads)
    names = [s.name for s in backends.status() if s.available and s.device in ('any', 'cpu')]
    rows: list[timing.Row] = []
    exponentials: dict[str, list[float]] = {name: [] for name in rate_callables()}
    for make_case in make_cases(args):
        lines, times = measure(make_case(), names, args)
        rows += lines
        for name, values in times.items():
            exponentials[name] += values
    threads, rates = torch.get_num_threads(), exponential_rates(exponentials)
    if not rates:
        raise RuntimeError('the clock is too coarse or the machine too busy to time exponentials; try more `--repeats`')
    function = max(rates, key=rates.__getitem__)
    add_ratios(rows, threads * rates[function])
    worst = max((row['backward_ratio'] for row in rows if row['backend'] != 'reference'), default=None)
    notes = [
        f'Floor: torch.{function} does {rates[function] / 1e9:.2f} G/s on one thread, out of the first-level cache, '
        f'times {threads} threads; the floor is the time of the forward exponentials alone.',
        f'Largest backward / forward without the reference: {worst:.2f}.' if worst else 'Only the reference is here.',
    ]
    title = f'Selective scans, batch 1, float32, {threads} threads'
    timing.save(args.out, 'selective_scan', title, rows, COLUMNS, notes, exponentials_per_second_and_thread=rates)


if __name__ == '__main__':
    main()
