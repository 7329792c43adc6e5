"""Our networks and timm's over image sizes on a CPU: latency, throughput, peak memory and cost per pixel, in one run.

The cost of a scan is linear in the number of pixels, so the cost per pixel should not grow. That of attention between
all tokens, as in DeiT, grows; that of attention in windows, of linear attention and of convolutions does not. Networks
that are made for one image size are built for each.

The peak is that of torch's CPU allocator over one forward pass, parameters, buffers and images included, and so the
same in every run; see ``memory.py`` for how it is measured and what it excludes.
"""

import argparse
import runpy
from collections.abc import Callable
from pathlib import Path

try:
    import networks
    import plots
    import timing
    import torch
    from memory import MIB, allocator_peak
except ModuleNotFoundError as error:
    runpy.run_path(str(Path(__file__).parents[1] / 'tools/_interpreter.py'))['stop'](error)

TOLERANCE = 0.15

MODELS = (
    'evm_tiny',
    'evm_small',
    'evm_base',
    'vmamba_tiny',
    'vmamba_tiny_s1l8',
    'vim_tiny',
    'vim_small',
    'swin_tiny_patch4_window7_224',
    'efficientvit_b1',
    'mobilenetv4_conv_medium',
    'deit_tiny_patch16_224',
)

COLUMNS = {
    'model': '{model}',
    'resolution': '{resolution}²',
    'median, ms': '{median:.1f}',
    'p25–p75, ms': '{p25:.1f}–{p75:.1f}',
    'images/s': '{rate:.2f}',
    'peak, MiB': '{peak_mib:.0f}',
    'ns / pixel': '{per_pixel:.0f}',
    '× the smallest': '{relative:.3f}',
}


def make_cases(args: argparse.Namespace) -> tuple[list[timing.Row], list[Callable[[], object]]]:
    """Build every network at every resolution.

    Returns:
        tuple[list[Row], list[Callable]]: Model, resolution, batch and the bytes of weights and images of each, and its
        forward pass.
    """
    rows, callables = [], []
    for name in filter(networks.is_ours, args.models) if args.dense else args.models:
        model = None
        for resolution in args.resolutions:
            if model is None or networks.is_sized(name):
                build = networks.build_dense if args.dense else networks.build
                model = build(name, resolution)
            images = torch.randn(args.batch, 3, resolution, resolution)
            held = networks.resident(model, images)
            rows.append({'model': name, 'resolution': resolution, 'batch': args.batch, 'resident': held})
            callables.append(lambda model=model, images=images: model(images))
    return rows, callables


def measure(args: argparse.Namespace) -> list[timing.Row]:
    """Time everything in one interleaved run, then measure the peaks."""
    rows, callables = make_cases(args)
    with torch.inference_mode():
        times = timing.interleaved({str(i): f for i, f in enumerate(callables)}, args.repeats, args.warmup)
        for i, (row, forward) in enumerate(zip(rows, callables, strict=True)):
            row |= timing.summarise(times[str(i)]) | {'times': times[str(i)]}
            row['peak'] = row['resident'] + allocator_peak(forward)
            row['peak_mib'] = row['peak'] / MIB
    timing.add_rates(rows)
    return rows


def verdicts(rows: list[timing.Row]) -> list[str]:
    """Return a sentence per network: does its cost per pixel grow by more than the tolerance?"""
    lines = []
    for model in dict.fromkeys(row['model'] for row in rows):
        relative = [row['relative'] for row in rows if row['model'] == model]
        verdict = 'does not grow' if max(relative) <= 1 + TOLERANCE else 'GROWS'
        lines.append(
            f'{model}: the cost per pixel {verdict} by more than {TOLERANCE:.0%} ({min(relative):.2f} to '
            f'{max(relative):.2f} times that of the smallest size).'
        )
    return lines


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        '--models', nargs='+', default=MODELS, help='ours, such as evm_tiny, and names of timm (default: %(default)s)'
    )
    parser.add_argument(
        '--resolutions',
        nargs='+',
        type=int,
        default=[224, 448, 672, 896, 1344],
        help='image sides (default: %(default)s)',
    )
    parser.add_argument('--batch', type=int, default=1, help='images per forward pass (default: %(default)s)')
    parser.add_argument('--dense', action='store_true', help='our backbones with their four maps, not classifiers')
    timing.add_arguments(parser, repeats=11, warmup=1)
    return parser.parse_args()


def main() -> None:
    """Measure, print and write resolution.md, resolution.json and resolution.png."""
    args = parse_args()
    timing.set_threads(args.threads)
    rows = measure(args)
    kind = 'backbones with four maps' if args.dense else 'classifiers'
    title = f'Inference over resolution, {kind}, batch {args.batch}, {torch.get_num_threads()} threads'
    note = (
        f'Eval and inference mode, float32, random weights; {args.repeats} rounds, each with one timed call of every '
        'line, in shuffled order. Peak memory: weights, images and what torch allocates during the forward pass; '
        "oneDNN's scratch memory and the allocator's gaps come on top."
    )
    timing.save(args.out, 'resolution', title, rows, COLUMNS, [note, *verdicts(rows)])
    plots.over_resolution(args.out / 'resolution.png', rows, title)


if __name__ == '__main__':
    main()
