"""Cost per pixel of EfficientVMamba over image sizes: linear attention's promise is that it stays constant."""

import argparse
from collections.abc import Callable
from pathlib import Path

import matplotlib
import timing
import torch
from latency import EVMClassifier

from mmevm.backbones import EfficientVMamba

matplotlib.use('Agg')

TOLERANCE = 0.15

COLUMNS = {
    'model': '{model}',
    'resolution': '{resolution}²',
    'median, ms': '{median:.1f}',
    'p25–p75, ms': '{p25:.1f}–{p75:.1f}',
    'ns / pixel': '{per_pixel:.0f}',
    '× the smallest': '{relative:.3f}',
}


def measure(args: argparse.Namespace) -> list[timing.Row]:
    """Times every variant at every resolution, all in one interleaved run."""
    rows, callables = [], {}
    for variant in args.variants:
        model = (EfficientVMamba(variant) if args.dense else EVMClassifier(variant)).eval()
        for resolution in args.resolutions:
            callables[str(len(rows))] = _forward(model, torch.randn(1, 3, resolution, resolution))
            rows.append({'model': f'evm_{variant}', 'resolution': resolution})
    with torch.inference_mode():
        times = timing.interleaved(callables, args.repeats, args.warmup)
    for i, row in enumerate(rows):
        row.update(timing.summarise(times[str(i)]), times=times[str(i)])
        row['per_pixel'] = 1e6 * row['median'] / row['resolution'] ** 2
    for row in rows:
        smallest = min((r for r in rows if r['model'] == row['model']), key=lambda r: r['resolution'])
        row['relative'] = row['per_pixel'] / smallest['per_pixel']
    return rows


def _forward(model: torch.nn.Module, x: torch.Tensor) -> Callable[[], object]:
    return lambda: model(x)


def verdicts(rows: list[timing.Row]) -> list[str]:
    """A sentence per variant: does its cost per pixel stay within the tolerance of that at the smallest size?"""
    lines = []
    for model in dict.fromkeys(row['model'] for row in rows):
        relative = [row['relative'] for row in rows if row['model'] == model]
        constant = max(abs(r - 1) for r in relative) <= TOLERANCE
        lines.append(
            f'{model}: the cost per pixel {"stays" if constant else "does NOT stay"} constant within {TOLERANCE:.0%} '
            f'({min(relative):.2f} to {max(relative):.2f} times that of the smallest size).'
        )
    return lines


def plot(path: Path, rows: list[timing.Row]) -> None:
    """Draws the cost per pixel over the resolution, with the tolerance as a band."""
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4), layout='constrained')
    axes.axhspan(1 - TOLERANCE, 1 + TOLERANCE, color='whitesmoke', label=f'± {TOLERANCE:.0%}')
    for model in dict.fromkeys(row['model'] for row in rows):
        points = [(row['resolution'], row['relative']) for row in rows if row['model'] == model]
        axes.plot(*zip(*sorted(points), strict=True), marker='o', label=model)
    axes.set(xlabel='image side, pixels', ylabel='cost per pixel, relative to the smallest', title='Cost per pixel')
    axes.set_ylim(bottom=0)
    axes.legend()
    axes.spines[['top', 'right']].set_visible(False)
    timing.replace_file(path, lambda draft: figure.savefig(draft, format='png', dpi=150))
    plt.close(figure)


def parse_args() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--variants', nargs='+', default=['tiny', 'small', 'base'], help='default: all three')
    parser.add_argument('--resolutions', nargs='+', type=int, default=[224, 384, 512, 768, 1024, 1344],
                        help='image sides (default: %(default)s)')  # fmt: skip
    parser.add_argument('--dense', action='store_true', help='the backbone with its four maps, not the classifier')
    timing.add_arguments(parser, repeats=15, warmup=2)
    return parser.parse_args()


def main() -> None:
    """Measures, prints and writes resolution.md, resolution.json and resolution.png."""
    args = parse_args()
    timing.set_threads(args.threads)
    rows = measure(args)
    kind = 'backbone with four maps' if args.dense else 'classifier'
    title = f'Cost per pixel, {kind}, batch 1, {torch.get_num_threads()} threads'
    timing.save(args.out, 'resolution', title, rows, COLUMNS, verdicts(rows))
    plot(args.out / 'resolution.png', rows)


if __name__ == '__main__':
    main()
