"""Effective receptive fields: ``python tools/analysis/erf.py EfficientVMamba:tiny VMamba:tiny Vim:tiny``.

How much does each pixel contribute to the central token of the last feature map? The idea is Luo et al.'s (arXiv
1701.04128); the convention that of RepLKNet (arXiv 2203.06717), which VMamba's figures follow: the positive outputs of
the central token are summed over channels, and the positive part of the gradient with respect to the image is summed
over colours and averaged over images. Without the first of the two the sum over the channels of a LayerNorm's output
would be a constant.
"""

from __future__ import annotations

import argparse
import io
import runpy
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # for the package demo
try:
    import numpy as np
    import torch
    from matplotlib.axes import Axes
    from matplotlib.colors import LogNorm
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage
    from matplotlib.patches import Rectangle
    from PIL import Image
    from torch import Tensor, nn

    from demo.mini_data.scene import SceneStyle, render_scene
    from demo.mini_data.shapes import SHAPES
    from demo.runs import show_progress
    from mmevm import backbones
    from mmevm.checkpoint import load_checkpoint
    from mmevm.engine.config import read_config, require_checkpoint
    from mmevm.engine.tasks import build_model
    from mmevm.errors import UsageError, exit_status
    from mmevm.registry import type_name
except ModuleNotFoundError as error:
    runpy.run_path(str(Path(__file__).parents[1] / '_interpreter.py'))['stop'](error)

SHARES = (0.2, 0.3, 0.5, 0.99)
"""The shares of all contributions in RepLKNet's table."""

Model = Callable[[Tensor], Tensor | Sequence[Tensor]]
Fields = Mapping[str, tuple[np.ndarray, np.ndarray | None]]
"""By model's name: contributions with random weights, ndarray[S, S], and with trained ones or None."""

_KINDS = ('random', 'trained')
_SUFFIXES = ('.bmp', '.jpeg', '.jpg', '.png', '.webp')
_STYLE = SceneStyle(groups=tuple((name,) for name in SHAPES), counts=(1, 4), extents=(0.2, 0.7))
# ImageNet's colours, as every config normalises.
_MEAN, _STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
# Contributions below this fraction of the largest one have the same colour.
_FLOOR = 1e-4
_LINES = {0.5: '-', 0.99: (0, (3, 2))}
_CAPTION = "edges of the squares that hold half (solid) and 99 % (dashed) of all contributions, in % of the image's"


def contributions(model: Model, image: Tensor) -> np.ndarray:
    """Return how much each pixel of one image contributes to the central token.

    Args:
        model (Callable): Returns a map [1, C, H', W'], or several, of which the last is used. The central token is
            that of row H' // 2 and column W' // 2.
        image (Tensor[1, in_channels, H, W]): Normalised image.

    Returns:
        ndarray[H, W]: float64, not negative.

    Raises:
        ValueError: If the model does not return maps.
    """
    image = image.detach().requires_grad_()
    out = model(image)
    last = out if isinstance(out, Tensor) else out[-1]
    if last.dim() != 4:
        raise ValueError(f'the model must give maps of shape [1, C, H, W], got {list(last.shape)}')
    center = last[:, :, last.shape[2] // 2, last.shape[3] // 2]
    (gradient,) = torch.autograd.grad(center.relu().sum(), image)
    return gradient.relu().sum(dim=(0, 1)).double().cpu().numpy()


def receptive_field(model: Model, images: Iterable[Tensor]) -> np.ndarray:
    """Return the mean of :func:`contributions` over at least one image of one size.

    Raises:
        ValueError: If there is no image, or no pixel of any contributes.
    """
    scores = [contributions(model, image) for image in images]
    if not scores:
        raise ValueError('a receptive field needs at least one image, got none')
    mean = np.mean(scores, axis=0)
    if not 0 < mean.sum() < np.inf:
        raise ValueError(f'the gradient must be finite and not zero everywhere, got a sum of {mean.sum()}')
    return mean


def square_sides(scores: np.ndarray, shares: Sequence[float] = SHARES) -> list[int]:
    """Return the sides of the smallest squares around the central pixel that hold given shares of all contributions.

    RepLKNet's area ratio r is the square of side / S. It is taken here of the contributions themselves; RepLKNet's
    script takes it of log10(1 + contribution), which depends on their unit.

    Args:
        scores (ndarray[S, S]): Contributions, not negative.
        shares (Sequence[float]): Each above 0 and at most 1.

    Returns:
        list[int]: For each share the side in pixels, odd, or S where only the full image holds it.

    Raises:
        ValueError: If ``scores`` is not square.
    """
    if scores.ndim != 2 or scores.shape[0] != scores.shape[1]:
        raise ValueError(f'`scores` must have shape [S, S], got {list(scores.shape)}')
    size = len(scores)
    distance = np.abs(np.arange(size) - size // 2)
    ring = np.maximum(distance[:, None], distance[None, :])
    held = np.bincount(ring.ravel(), weights=scores.ravel()).cumsum()
    # The factor keeps rounding errors from exceeding the sum.
    needed = [np.searchsorted(held, share * held[-1] * (1 - 1e-12)) for share in shares]
    return [min(2 * int(radius) + 1, size) for radius in needed]


def _normalise(image: np.ndarray) -> Tensor:
    """Args: image (ndarray[H, W, 3]), RGB from 0 to 255. Returns: Tensor[1, 3, H, W], float32."""
    scaled = (image.astype(np.float32) - np.float32(_MEAN)) / np.float32(_STD)
    return torch.from_numpy(scaled).permute(2, 0, 1).unsqueeze(0).contiguous()


def render_images(count: int, size: int, seed: int = 0) -> Iterator[Tensor]:
    """Render scenes, normalised, Tensor[1, 3, size, size]; more scenes do not change the first ones."""
    for index in range(count):
        yield _normalise(render_scene(np.random.default_rng([seed, index]), size, _STYLE).image)


def read_images(folder: str | Path, count: int, size: int) -> Iterator[Tensor]:
    """Read the first images below a folder, by path, each resized to a square and normalised.

    Raises:
        FileNotFoundError: If there is no image.
    """
    found = sorted(path for path in Path(folder).rglob('*') if path.suffix.lower() in _SUFFIXES)
    if not found:
        raise FileNotFoundError(f'{folder} must be a folder with images ({", ".join(_SUFFIXES)}), found none')
    for path in found[:count]:
        with Image.open(path) as image:
            yield _normalise(np.asarray(image.convert('RGB').resize((size, size), Image.Resampling.BICUBIC)))


def draw_field(axes: Axes, scores: np.ndarray) -> AxesImage:
    """Draw one panel: contributions, ndarray[S, S], and the squares that hold half and nearly all of them."""
    clipped = np.clip(scores / scores.max(), _FLOOR, None)
    # Perceptually uniform, also for colour-blind readers.
    image = axes.imshow(clipped, norm=LogNorm(_FLOOR, 1), cmap='magma', interpolation='nearest')
    size, sides = len(scores), square_sides(scores, list(_LINES))
    for side, line in zip(sides, _LINES.values(), strict=True):
        # Around the central pixel; an even image as such has no central pixel.
        corner = -0.5 if side == size else size // 2 - side // 2 - 0.5
        axes.add_patch(Rectangle((corner, corner), side, side, fc='none', ec='white', linewidth=1.4, linestyle=line))
    half, most = (100 * side / size for side in sides)
    axes.set_xlabel(f'half in {half:.0f} %, 99 % in {most:.0f} %', fontsize=8.5)
    return image


def draw_receptive_fields(fields: Fields, path: str | Path, title: str = '') -> str:
    """Draw contributions relative to the largest of each, random weights above trained ones; return the file's path."""
    rows = 1 + any(trained is not None for _, trained in fields.values())
    figure = Figure(figsize=(0.9 + 2.35 * len(fields), 0.4 + 2.62 * rows), dpi=150, layout='constrained')
    panels = figure.subplots(rows, len(fields), squeeze=False)
    for column, (name, pair) in zip(panels.T, fields.items(), strict=True):
        column[0].set_title(name, fontsize=9.5, weight='bold')
        for axes, scores in zip(column, pair, strict=False):
            if scores is None:
                axes.axis('off')
                continue
            axes.set(xticks=[], yticks=[])
            image = draw_field(axes, scores)
    for axes, kind in zip(panels[:, 0], _KINDS, strict=False):
        axes.set_ylabel(f'{kind} weights', fontsize=9.5)
    bar = figure.colorbar(image, ax=panels, shrink=0.9, aspect=30, pad=0.01)
    bar.set_label('contribution, of the largest', fontsize=8.5)
    bar.ax.tick_params(labelsize=8.5)
    if len(fields) > 2:  # there is room for it
        figure.supxlabel(_CAPTION, fontsize=8.5)
    figure.suptitle(title, fontsize=9.5)
    buffer = io.BytesIO()
    figure.savefig(buffer)
    # The maps are half noise, which PNG does not compress; with a palette the file is a third as large.
    Image.open(buffer).convert('RGB').quantize(256, Image.Quantize.MAXCOVERAGE).save(path, optimize=True)
    return str(Path(path).absolute())


def build_backbone(model: str, size: int, seed: int) -> nn.Module:
    """Build a backbone with random weights, for evaluation.

    Args:
        model (str): BACKBONE:ARCH, or a config file.
        size (int): Edge of the images, for the position embedding of a Vim by name.
        seed (int): Of the weights.

    Returns:
        nn.Module: From Tensor[B, 3, H, W] to its maps.

    Raises:
        UsageError: If there is no such model.
    """
    torch.manual_seed(seed)
    backbone = _build_from_config(model) if model.endswith('.py') else _build_by_name(model, size)
    backbone.eval()  # some of the libraries' own backbones return nothing
    return backbone.requires_grad_(False)


def _build_by_name(name: str, size: int) -> nn.Module:
    kind, _, arch = name.partition(':')
    if kind not in backbones.__all__:
        raise UsageError(
            f'{name!r} is no model: expected a config file, or one of {", ".join(backbones.__all__)} with its arch, '
            'such as Vim:tiny'
        )
    # The others return all four maps, as the checkpoints of most detectors and segmentors expect.
    options = {'img_size': size, 'out_type': 'featmap'} if kind == 'Vim' else {}
    try:
        return getattr(backbones, kind)(arch, **options)
    except ValueError as error:
        raise UsageError(f'{name}: {error}') from None


def _build_from_config(path: str) -> nn.Module:
    cfg = read_config(path)
    settings = cfg.get('model', {}).get('backbone')
    if settings is None:
        raise UsageError(f'{path} must have a model.backbone')
    if type_name(settings) == 'Vim':
        settings.out_type = 'featmap'  # a classifier's token is no map
    return build_model(cfg).backbone


def _label(model: str) -> str:
    """Return a model's name in the table and the figure."""
    return Path(model).stem if model.endswith('.py') else model.replace(':', ' ')


def _build_pairs(args: argparse.Namespace) -> dict[str, tuple[nn.Module, nn.Module | None]]:
    """Build each model with random weights, and with trained ones if given."""
    pairs = {}
    for model, source in zip_longest(args.models, args.weights, fillvalue='-'):
        random, trained = build_backbone(model, args.size, args.seed), None
        if source != '-':
            trained = build_backbone(model, args.size, args.seed)
            try:
                load_checkpoint(trained, source)
            except TypeError as error:  # not one of our backbones
                raise UsageError(f'{model}: {error}') from None
        pairs[_label(model)] = (random, trained)
    return pairs


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line; None means the process's own."""
    parser = argparse.ArgumentParser(
        description='Draw how much each pixel contributes to the central token of the last feature map, over many '
        "images, and print the squares in the middle that hold given shares of it. RepLKNet's convention; see the "
        'beginning of this file.'
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
    parser.add_argument('--images', metavar='DIR', help='folder of images (default: rendered scenes)')
    parser.add_argument('--count', type=int, default=50, help='number of images (default: %(default)s)')
    parser.add_argument('--size', type=int, default=224, help='their edge in pixels (default: %(default)s)')
    parser.add_argument('--seed', type=int, default=0, help='of random weights and scenes (default: %(default)s)')
    parser.add_argument('--title', default='', help='heading of the figure')
    parser.add_argument('--out', default='erf.png', metavar='FILE.png', help='default: %(default)s')
    parser.add_argument('--scores', metavar='FILE.npz', help='write the contributions there, too')
    return parser.parse_args(argv)


def check_args(args: argparse.Namespace) -> None:
    """Raise a UsageError for arguments that do not fit."""
    if len(args.weights) > len(args.models):
        raise UsageError(f'--weights takes a file a model, got {len(args.weights)} for {len(args.models)} models')
    if len(set(map(_label, args.models))) < len(args.models):
        raise UsageError(f'each model must be named once, got {" ".join(args.models)}')
    for name, least in (('size', 64), ('count', 1), ('seed', 0)):
        if getattr(args, name) < least:
            raise UsageError(f'--{name} must be at least {least}, got {getattr(args, name)}')
    for name in args.weights:
        if name != '-':
            require_checkpoint(name)
    if not args.out.lower().endswith('.png'):
        raise UsageError(f'--out must end with .png, got {args.out}')
    for path in filter(None, (args.out, args.scores)):
        if not Path(path).absolute().parent.is_dir():
            raise UsageError(f'{path}: there is no such folder; make it first')


def measure(args: argparse.Namespace) -> Fields:
    """Measure the contributions that the command line asks for."""
    # What does not fit is refused before anything is rendered or measured.
    pairs, fields = _build_pairs(args), {}
    read = read_images(args.images, args.count, args.size) if args.images else None
    images = list(read or render_images(args.count, args.size, args.seed))
    for label, pair in pairs.items():
        titles = (f'{label}, {kind} weights: {len(images)} images' for kind in _KINDS)
        fields[label] = tuple(
            None if model is None else receptive_field(model, show_progress(images, title))
            for model, title in zip(pair, titles, strict=True)
        )
    return fields


def run(args: argparse.Namespace) -> None:
    """Measure, print the squares, and write the files."""
    check_args(args)
    try:
        fields = measure(args)
    except (OSError, ValueError) as error:
        raise UsageError(str(error)) from error
    scores = {(name, kind): pair[i] for name, pair in fields.items() for i, kind in enumerate(_KINDS)}
    scores = {key: value for key, value in scores.items() if value is not None}
    print("\nEdge of the square in the middle that holds a share of all contributions, in % of the image's:")
    print(f'{"model":32s} {"weights":8s}' + ''.join(f'{f"{100 * share:.0f} %":>8s}' for share in SHARES))
    for (name, kind), value in scores.items():
        sides = [100 * side / len(value) for side in square_sides(value)]
        print(f'{name:32s} {kind:8s}' + ''.join(f'{side:8.1f}' for side in sides))
    if args.scores:
        np.savez_compressed(args.scores, **{f'{name} {kind}': value for (name, kind), value in scores.items()})
    print(draw_receptive_fields(fields, args.out, args.title))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    args = parse_args(argv)
    return exit_status(lambda: run(args))


if __name__ == '__main__':
    raise SystemExit(main())
