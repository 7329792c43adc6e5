"""``tools/analysis/erf.py``."""

import argparse
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from mmevm.engine.config import read_config, require_checkpoint
from mmevm.errors import UsageError, exit_status
from mmevm.registry import type_name

_SMALLEST = 64
_KINDS = ('random', 'trained')


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description='Draw how much each pixel counts for the middle token of the last feature map, over many pictures, '
        "and print the squares in the middle that hold given shares of it. RepLKNet's convention; see "
        'mmevm/analysis/erf.py.'
    )
    parser.add_argument('models', nargs='+', metavar='MODEL', help='BACKBONE:ARCH, such as Vim:tiny, or a config file')
    parser.add_argument(
        '--weights',
        nargs='+',
        default=[],
        metavar='FILE',
        help='trained weights of the models in their order, to be drawn below the random ones; - for none. Files of '
        'this project or of upstream, or mmevm://NAME of the zoo',
    )
    parser.add_argument('--pictures', metavar='DIR', help='folder of pictures (default: rendered scenes)')
    parser.add_argument('--count', type=int, default=50, help='number of pictures (default: %(default)s)')
    parser.add_argument('--size', type=int, default=224, help='their edge in pixels (default: %(default)s)')
    parser.add_argument('--seed', type=int, default=0, help='of random weights and scenes (default: %(default)s)')
    parser.add_argument('--title', default='', help='heading of the picture')
    parser.add_argument('--out', default='erf.png', metavar='FILE.png', help='default: %(default)s')
    parser.add_argument('--scores', metavar='FILE.npz', help='write the contributions there, too')
    return parser.parse_args(argv)


def _check(args: argparse.Namespace) -> None:
    if len(args.weights) > len(args.models):
        raise UsageError(f'--weights takes a file a model, got {len(args.weights)} for {len(args.models)} models')
    if len(set(map(_label, args.models))) < len(args.models):
        raise UsageError(f'each model must be named once, got {" ".join(args.models)}')
    if args.size < _SMALLEST:
        raise UsageError(f'--size must be at least {_SMALLEST}, got {args.size}')
    if args.count < 1:
        raise UsageError(f'--count must be at least 1, got {args.count}')
    if args.seed < 0:
        raise UsageError(f'--seed must be 0 or larger, got {args.seed}')
    for name in args.weights:
        if name != '-':
            require_checkpoint(name)
    if not args.out.lower().endswith('.png'):
        raise UsageError(f'--out must end with .png, got {args.out}')
    for path in filter(None, (args.out, args.scores)):
        if not Path(path).absolute().parent.is_dir():
            raise UsageError(f'{path}: there is no such folder; make it first')


def _by_name(name: str, size: int) -> nn.Module:
    from mmevm import backbones

    kind, _, arch = name.partition(':')
    if kind not in backbones.__all__:
        raise UsageError(
            f'{name!r} is no model: expected a config file, or one of {", ".join(backbones.__all__)} with its arch, '
            'such as Vim:tiny'
        )
    # The others give all four maps, as the files of most detectors and segmentors expect.
    options = {'img_size': size, 'out_type': 'featmap'} if kind == 'Vim' else {}
    try:
        return getattr(backbones, kind)(arch, **options)
    except ValueError as error:
        raise UsageError(f'{name}: {error}') from None


def _by_config(path: str) -> nn.Module:
    from mmevm.analysis.tasks import build_model

    cfg = read_config(path)
    settings = cfg.get('model', {}).get('backbone')
    if settings is None:
        raise UsageError(f'{path} must have a model.backbone')
    if type_name(settings) == 'Vim':
        settings.out_type = 'featmap'  # a classifier's token is no map
    return build_model(cfg).backbone


def build_backbone(model: str, size: int, seed: int) -> nn.Module:
    """Build a backbone with random weights, for evaluation.

    Args:
        model (str): BACKBONE:ARCH, or a config file.
        size (int): Edge of the pictures, for the position embedding of a Vim by name.
        seed (int): Of the weights.

    Returns:
        nn.Module: From Tensor[B, 3, H, W] to its maps.

    Raises:
        UsageError: If there is no such model.
    """
    torch.manual_seed(seed)
    backbone = _by_config(model) if model.endswith('.py') else _by_name(model, size)
    backbone.eval()  # that of some of the libraries' own backbones returns nothing
    return backbone.requires_grad_(False)


def _label(model: str) -> str:
    """How a model is called in the table and the figure."""
    return Path(model).stem if model.endswith('.py') else model.replace(':', ' ')


def _build_pairs(args: argparse.Namespace) -> dict[str, tuple[nn.Module, nn.Module | None]]:
    """Each model with random weights, and with the trained ones if there are any, by its label."""
    from mmevm.checkpoint import load_checkpoint

    pairs = {}
    for model, source in zip_longest(args.models, args.weights, fillvalue='-'):
        random, trained = build_backbone(model, args.size, args.seed), None
        if source != '-':
            trained = build_backbone(model, args.size, args.seed)
            try:
                load_checkpoint(trained, source)
            except TypeError as error:  # not a backbone of ours
                raise UsageError(f'{model}: {error}') from None
        pairs[_label(model)] = (random, trained)
    return pairs


def _measure(args: argparse.Namespace, pictures: Sequence[Tensor]) -> dict[str, tuple[np.ndarray, np.ndarray | None]]:
    """Contributions with random weights and with the trained ones, by the model's label."""
    from mmevm.analysis.erf import receptive_field

    fields = {}
    # All are built first, so that what does not fit is refused before anything is measured.
    for label, pair in _build_pairs(args).items():
        titles = (f'{label}, {kind} weights: {len(pictures)} pictures' for kind in _KINDS)
        fields[label] = tuple(
            None if model is None else receptive_field(model, tqdm(pictures, title, disable=None))
            for model, title in zip(pair, titles, strict=True)
        )
    return fields


def _print(fields: dict[str, tuple[np.ndarray, np.ndarray | None]]) -> None:
    from mmevm.analysis.erf import SHARES, square_sides

    print("\nEdge of the square in the middle that holds a share of all contributions, in % of the picture's:")
    print(f'{"model":32s} {"weights":8s}' + ''.join(f'{f"{100 * share:.0f} %":>8s}' for share in SHARES))
    for name, both in fields.items():
        for kind, scores in zip(_KINDS, both, strict=True):
            if scores is not None:
                sides = [100 * side / len(scores) for side in square_sides(scores)]
                print(f'{name:32s} {kind:8s}' + ''.join(f'{side:8.1f}' for side in sides))


def _run(args: argparse.Namespace) -> None:
    from mmevm.analysis.pictures import read_pictures, render_pictures
    from mmevm.visualization.erf import draw_receptive_fields

    _check(args)
    try:
        source = read_pictures(args.pictures, args.count, args.size) if args.pictures else None
        fields = _measure(args, list(source or render_pictures(args.count, args.size, args.seed)))
    except (OSError, ValueError) as error:
        raise UsageError(str(error)) from error
    _print(fields)
    if args.scores:
        named = {f'{name} {kind}': both[i] for name, both in fields.items() for i, kind in enumerate(_KINDS)}
        np.savez_compressed(args.scores, **{name: scores for name, scores in named.items() if scores is not None})
    print(draw_receptive_fields(fields, args.out, args.title))


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of ``tools/analysis/erf.py``; returns the exit status."""
    args = _parse(argv)
    return exit_status(lambda: _run(args))
