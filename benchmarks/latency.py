"""Latency of the classifiers: ours against timm's networks of the same cost class, in one run.

Evaluation mode, ``torch.inference_mode``, float32, batch 1, 224 x 224 unless options say otherwise. Every timm network
runs in both memory layouts, contiguous (NCHW) and channels_last, because which is faster differs from network to
network and from machine to machine; our networks take contiguous images and work channels-last inside.
"""

import argparse
import copy
import runpy
from collections.abc import Callable
from pathlib import Path

try:
    import networks
    import plots
    import timing
    import torch
    from torch import Tensor
except ModuleNotFoundError as error:
    runpy.run_path(str(Path(__file__).parents[1] / 'tools/_interpreter.py'))['stop'](error)

SWIN = 'swin_tiny_patch4_window7_224'

COUNTERPARTS = {
    'evm_tiny': 'regnety_008',
    'evm_small': 'regnety_016',
    'evm_base': SWIN,
    'vmamba_tiny': SWIN,
    'vmamba_tiny_s1l8': SWIN,
    'vim_tiny': 'deit_tiny_patch16_224',
}
"""The timm network that each of ours is measured against: comparable cost and accuracy, or what its paper names."""

MODELS = (
    *COUNTERPARTS,
    'regnety_008',
    'pvt_v2_b0',
    'mobilevit_xs',
    'mobilevit_s',
    'regnety_016',
    'deit_tiny_patch16_224',
    SWIN,
)

Forward = Callable[[], Tensor]

COLUMNS = {
    'model': '{model}',
    'params, M': '{params:.2f}',
    'layout': '{layout}',
    'median, ms': '{median:.1f}',
    'p25–p75, ms': '{p25:.1f}–{p75:.1f}',
    'counterpart': '{counterpart:s}',
    '× its default layout': '{ratio_default:.2f}',
    '× its best layout': '{ratio_best:.2f}',
}


def make_callables(names: list[str], resolution: int, batch: int) -> tuple[list[timing.Row], list[Forward]]:
    """Build every network in each of its layouts.

    Returns:
        tuple[list[Row], list[Forward]]: Model, layout and parameters (millions) of each, and its forward pass.
    """
    images = torch.randn(batch, 3, resolution, resolution)
    rows, callables = [], []
    for name in names:
        model = networks.build(name, resolution)
        params = sum(p.numel() for p in model.parameters()) / 1e6
        for layout, memory_format in networks.LAYOUTS.items():
            if networks.is_ours(name) and layout != 'contiguous':
                continue
            placed = networks.place(copy.deepcopy(model), layout)
            x = images.contiguous(memory_format=memory_format)
            rows.append({'model': name, 'layout': layout, 'params': params})
            callables.append(lambda placed=placed, x=x: placed(x))
    return rows, callables


def add_ratios(rows: list[timing.Row]) -> None:
    """Divide each variant's median by its counterpart's, in the counterpart's default layout and in its faster one."""
    for row in rows:
        counterpart = COUNTERPARTS.get(row['model'])
        layouts = {r['layout']: r['median'] for r in rows if r['model'] == counterpart}
        if layouts:
            row['counterpart'] = counterpart
            row['ratio_default'] = row['median'] / layouts['contiguous']
            row['ratio_best'] = row['median'] / min(layouts.values())


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        '--models', nargs='+', default=MODELS, help='such as evm_tiny, vmamba_tiny_s1l8, vim_tiny, and names of timm'
    )
    parser.add_argument('--resolution', type=int, default=224, help='image size (default: %(default)s)')
    parser.add_argument('--batch', type=int, default=1, help='images per forward pass (default: %(default)s)')
    timing.add_arguments(parser, repeats=50, warmup=5)
    return parser.parse_args()


def main() -> None:
    """Measure, print and write latency.md, latency.json and latency.png."""
    args = parse_args()
    timing.set_threads(args.threads)
    rows, callables = make_callables(list(args.models), args.resolution, args.batch)
    with torch.inference_mode():
        times = timing.interleaved({str(i): f for i, f in enumerate(callables)}, args.repeats, args.warmup)
    for i, row in enumerate(rows):
        row.update(timing.summarise(times[str(i)]), times=times[str(i)])
    add_ratios(rows)
    title = f'Latency, {args.resolution} × {args.resolution}, batch {args.batch}, {torch.get_num_threads()} threads'
    note = (
        f'Forward pass of the classifier, eval and inference mode, float32, random weights; {args.repeats} rounds, '
        'each with one timed call of every line, in shuffled order. Ratios are of medians, to the counterpart in '
        "torch's default layout (contiguous) and in its faster one."
    )
    timing.save(args.out, 'latency', title, rows, COLUMNS, [note])
    plots.latency(args.out / 'latency.png', rows, title)


if __name__ == '__main__':
    main()
