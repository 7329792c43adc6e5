"""The forward pass on a CPU with the compiled scan, and with the path of the released code.

Without a GPU the released code of EfficientVMamba and VMamba scans in Python: routes are copied out of the map
(``composed.py``), the decays and inputs of all tokens and states are computed and stored, a loop takes one token after
the other, and the results are copied back and summed. Everything else, linear layers, convolutions and norms, is ours
in both columns: the ratio compares the same network with two scans. The network is timed without any scan, too: no
scan, however fast, could make the ratio larger than upstream's time over that. Vim's released code has no path without
a GPU.

The loop takes seconds per image, so there are few rounds; in each, all paths are timed in turn.
"""

import argparse
import copy
import runpy
from pathlib import Path

try:
    import composed
    import networks
    import timing
    import torch
    import torch.nn.functional as F
    from torch import Tensor, nn

    from mmevm.layers.mixers import ScanMixer
except ModuleNotFoundError as error:
    runpy.run_path(str(Path(__file__).parents[1] / 'tools/_interpreter.py'))['stop'](error)

TARGET = 10.0

COLUMNS = {
    'model': '{model}',
    'median, ms': '{median:.1f}',
    'p25–p75, ms': '{p25:.1f}–{p75:.1f}',
    "upstream's scan, ms": '{upstream_median:.0f}',
    'its p25–p75, ms': '{upstream_p25:.0f}–{upstream_p75:.0f}',
    "upstream's / ours": '{ratio:.1f}',
    'without a scan, ms': '{rest_median:.1f}',
    "upstream's / without": '{bound:.1f}',
}


def sequential_scan(
    u: Tensor, delta: Tensor, A: Tensor, Bs: Tensor, Cs: Tensor, Ds: Tensor, delta_bias: Tensor, delta_softplus: bool
) -> Tensor:
    """Return the selective scan by torch alone, all decays and inputs at once and the states one after the other.

    Args and returns: as :func:`mmevm.ops.selective_scan`.
    """
    delta = delta + delta_bias[:, None]
    if delta_softplus:
        delta = F.softplus(delta)
    Bs, Cs = (m.repeat_interleave(u.shape[1] // m.shape[1], dim=1) for m in (Bs, Cs))  # [B, D, N, L]
    decays = torch.exp(torch.einsum('bdl,dn->bdln', delta, A))
    inputs = torch.einsum('bdl,bdnl,bdl->bdln', delta, Bs, u)
    state = u.new_zeros(*u.shape[:2], A.shape[1])
    outputs = []
    for t in range(u.shape[2]):
        state = decays[:, :, t] * state + inputs[:, :, t]
        outputs.append(torch.einsum('bdn,bdn->bd', state, Cs[..., t]))
    return torch.stack(outputs, dim=2) + Ds[:, None] * u


def make_paths(name: str, resolution: int) -> dict[str, nn.Module]:
    """Return a classifier with the compiled scan (''), with upstream's ('upstream') and with none ('rest')."""
    model = networks.build(name, resolution)
    paths = {'': model, 'upstream': composed.compose(copy.deepcopy(model), sequential_scan)}
    without = copy.deepcopy(model)
    for module in without.modules():
        if isinstance(module, ScanMixer):
            module.scan = lambda x: x
    return paths | {'rest': without}


def measure(args: argparse.Namespace) -> list[timing.Row]:
    """Time all paths of every network in one interleaved run, after checking that the first two agree."""
    images = torch.randn(1, 3, args.resolution, args.resolution)
    callables = {}
    for name in args.models:
        paths = make_paths(name, args.resolution)
        torch.testing.assert_close(paths[''](images), paths['upstream'](images), rtol=1e-3, atol=1e-3)
        for path, model in paths.items():
            callables[f'{name} {path}'] = lambda model=model: model(images)
    times = timing.interleaved(callables, args.repeats, args.warmup)
    rows = {name: {'model': name} for name in args.models}
    for key, values in times.items():
        name, _, path = key.partition(' ')
        prefix = path and f'{path}_'
        rows[name] |= {f'{prefix}{key}': value for key, value in timing.summarise(values).items()}
        rows[name][f'{prefix}times'] = values
    for row in rows.values():
        row['ratio'] = row['upstream_median'] / row['median']
        row['bound'] = row['upstream_median'] / row['rest_median']
    return list(rows.values())


def verdicts(rows: list[timing.Row]) -> list[str]:
    """Return a sentence per network: is the compiled path as many times as fast as required?"""
    return [
        f"{row['model']}: {row['ratio']:.1f} times as fast as with upstream's scan, "
        f'{"at least" if row["ratio"] >= TARGET else "NOT"} the {TARGET:.0f} times that are wanted.'
        for row in rows
    ]


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        '--models',
        nargs='+',
        default=('evm_tiny', 'vmamba_tiny', 'vmamba_tiny_s1l8'),
        help='of the families evm and vmamba (default: %(default)s)',
    )
    parser.add_argument('--resolution', type=int, default=224, help='image size (default: %(default)s)')
    timing.add_arguments(parser, repeats=5, warmup=1)
    return parser.parse_args()


def main() -> None:
    """Measure, print and write upstream.md and upstream.json."""
    args = parse_args()
    timing.set_threads(args.threads)
    with torch.inference_mode():
        rows = measure(args)
    size = f'{args.resolution} × {args.resolution}'
    title = f"Compiled scan against upstream's CPU path, {size}, batch 1, {torch.get_num_threads()} threads"
    note = (
        f'Forward pass of the classifier, eval and inference mode, float32, random weights; {args.repeats} rounds, '
        "since upstream's path takes seconds. The networks differ in the scan alone, and no scan could make a ratio "
        'larger than the last column.'
    )
    timing.save(args.out, 'upstream', title, rows, COLUMNS, [note, *verdicts(rows)])


if __name__ == '__main__':
    main()
