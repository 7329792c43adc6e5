"""Latency of the classifiers: ours against timm's networks of the same cost class, in one run.

Evaluation mode, ``torch.inference_mode``, float32, batch 1, 224 x 224 unless options say otherwise. Every timm network
runs in both memory layouts, contiguous (NCHW) and channels_last, because which is faster differs from network to
network and from machine to machine; our networks take contiguous images and work channels-last inside.
"""

import argparse
import copy
import runpy
from collections.abc import Callable, Collection
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

TOP1 = {
    'evm_tiny': 76.5,
    'evm_small': 78.7,
    'evm_base': 81.8,
    'vmamba_tiny': 82.2,
    'vmamba_tiny_s1l8': 82.6,
    'vim_tiny': 76.1,
    'regnety_008': 76.3,
    'pvt_v2_b0': 70.5,
    'mobilevit_xs': 74.8,
    'mobilevit_s': 78.4,
    'efficientvim_m2': 75.4,
    'efficientvim_m3': 77.6,
    'repvit_m0_9': 78.7,
    'efficientvit_b1': 79.7,
    'hgnetv2_b1': 79.9,
    'mobilenetv4_conv_medium': 79.9,
    'regnety_016': 77.9,
    'deit_tiny_patch16_224': 72.2,
    SWIN: 81.3,
}
"""The models, and their top-1 accuracy on ImageNet, percent: the papers' or timm's, of no run of ours."""

COMPILED, HALVED = ', compiled', ', bfloat16'
"""The end of a layout's name where the network runs under ``torch.compile``, or in bfloat16."""

Forward = Callable[[], Tensor]

COLUMNS = {
    'model': '{model}',
    'params, M': '{params:.2f}',
    "top-1, % (the papers')": '{top1:.1f}',
    'layout': '{layout}',
    'median, ms': '{median:.1f}',
    'p25–p75, ms': '{p25:.1f}–{p75:.1f}',
    'counterpart': '{counterpart:s}',
    '× its default layout': '{ratio_default:.2f}',
    '× its best layout': '{ratio_best:.2f}',
}


def make_callables(
    names: list[str], resolution: int, batch: int, compiled: Collection[str], halved: Collection[str] = ()
) -> tuple[list[timing.Row], list[Forward]]:
    """Build every network in each of its layouts.

    Args:
        names (list[str]): The networks.
        resolution (int): Image size.
        batch (int): Images per pass.
        compiled (Collection[str]): Networks that also run under ``torch.compile``, in every layout.
        halved (Collection[str]): Networks that also run in bfloat16, in every layout.

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
            variants = {layout: placed}
            if name in compiled:
                variants[layout + COMPILED] = torch.compile(copy.deepcopy(placed))
            if name in halved:
                variants[layout + HALVED] = copy.deepcopy(placed).bfloat16()
            for variant, network in variants.items():
                rows.append({'model': name, 'layout': variant, 'params': params, 'top1': TOP1.get(name)})
                given = x.bfloat16() if variant.endswith(HALVED) else x
                callables.append(lambda network=network, x=given: network(x))
    return rows, callables


def _variant(row: timing.Row) -> str:
    return ''.join(row['layout'].partition(', ')[1:])


def add_ratios(rows: list[timing.Row]) -> None:
    """Divide each variant's median by its counterpart's, in the counterpart's default layout and in its faster one.

    A compiled variant is compared with the compiled counterpart, one in bfloat16 with the network itself in float32.
    """
    for row in rows:
        counterpart, variant = COUNTERPARTS.get(row['model']), _variant(row)
        if variant == HALVED:
            counterpart, variant = row['model'], ''
        medians = [r['median'] for r in rows if r['model'] == counterpart and _variant(r) == variant]
        if medians:
            row['counterpart'] = counterpart
            row['ratio_default'] = row['median'] / medians[0]  # contiguous comes first
            row['ratio_best'] = row['median'] / min(medians)


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        '--models',
        nargs='+',
        default=list(TOP1),
        help='such as evm_tiny, vmamba_tiny_s1l8, vim_tiny, and names of timm',
    )
    parser.add_argument('--resolution', type=int, default=224, help='image size (default: %(default)s)')
    parser.add_argument('--batch', type=int, default=1, help='images per forward pass (default: %(default)s)')
    parser.add_argument(
        '--compile', nargs='*', default=(), metavar='MODEL', help='models that also run under torch.compile'
    )
    parser.add_argument('--bfloat16', nargs='*', default=(), metavar='MODEL', help='models that also run in bfloat16')
    timing.add_arguments(parser, repeats=50, warmup=5)
    return parser.parse_args()


def main() -> None:
    """Measure, print and write latency.md, latency.json, latency.png and accuracy.png."""
    args = parse_args()
    timing.set_threads(args.threads)
    rows, callables = make_callables(list(args.models), args.resolution, args.batch, args.compile, args.bfloat16)
    with torch.inference_mode():
        times = timing.interleaved({str(i): f for i, f in enumerate(callables)}, args.repeats, args.warmup)
    for i, row in enumerate(rows):
        row.update(timing.summarise(times[str(i)]), times=times[str(i)])
    add_ratios(rows)
    title = f'Latency, {args.resolution} × {args.resolution}, batch {args.batch}, {torch.get_num_threads()} threads'
    note = (
        'Forward pass of the classifier, eval and inference mode, float32 unless stated, random weights; '
        f'{args.repeats} rounds, '
        'each with one timed call of every line, in shuffled order. Ratios are of medians, to the counterpart in '
        "torch's default layout (contiguous) and in its faster one, compiled lines to its compiled ones, "
        "those in bfloat16 to the same network in float32. Accuracies are the papers', of no run of ours."
    )
    timing.save(args.out, 'latency', title, rows, COLUMNS, [note])
    plots.latency(args.out / 'latency.png', rows, title)
    plots.accuracy(args.out / 'accuracy.png', rows, title)


if __name__ == '__main__':
    main()
