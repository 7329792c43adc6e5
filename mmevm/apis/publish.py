"""``tools/publish_model.py``: from a training checkpoint to the file and the metafile entry that others can load."""

import argparse
import hashlib
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn

from mmevm.checkpoint import CheckpointError, fit_checkpoint, load_file
from mmevm.engine.config import read_config
from mmevm.engine.runner.storage import write_file
from mmevm.engine.tasks import build_model
from mmevm.errors import UsageError, exit_status
from mmevm.version import __version__

TASKS = {'mmdet': 'Object Detection', 'mmseg': 'Semantic Segmentation', 'mmpretrain': 'Image Classification'}
"""The metafiles' names of tasks by a config's ``default_scope``."""


def _metric(text: str) -> tuple[str, float]:
    name, _, value = text.partition('=')
    try:
        return name, float(value)
    except ValueError:
        raise argparse.ArgumentTypeError(f'{text!r} is not of the form NAME=NUMBER') from None


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parses the command line; None means the process's own."""
    parser = argparse.ArgumentParser(
        description='Strip a training checkpoint to its weights, name it by its hash, and write the metafile entry '
        'under which MIM and the inferencers can fetch it. Nothing is uploaded.'
    )
    parser.add_argument('config', type=Path, help='config that the checkpoint was trained with')
    parser.add_argument('checkpoint', help='checkpoint of the training')
    parser.add_argument('--out', type=Path, default=Path('published'), metavar='DIR', help='default: published')
    parser.add_argument('--url', metavar='BASE', help='address of the folder from which the file will be served')
    parser.add_argument(
        '--metric',
        type=_metric,
        action='append',
        default=[],
        metavar='NAME=VALUE',
        help="what you measured, e.g. 'box AP=36.1'; may be repeated",
    )
    parser.add_argument('--dataset', default='unknown', help='data set of the metrics, e.g. COCO')
    return parser.parse_args(argv)


def strip(checkpoint: dict[str, Any], config: Path) -> dict[str, Any]:
    """What is published of a checkpoint: weights on the CPU, class names and origin; no optimizer, no log, no paths.

    Under MMEngine's ``EMAHook`` the weights of a checkpoint are the averaged ones already.

    Args:
        checkpoint (dict): Content of a file.
        config (Path): Its config.

    Returns:
        dict: ``state_dict`` and ``meta``.

    Raises:
        CheckpointError: If there are no weights, or one of them is not finite.
    """
    weights = checkpoint.get('state_dict')
    if not weights:
        raise CheckpointError(f'The checkpoint has no `state_dict`; it has {", ".join(map(str, checkpoint))}')
    for name, value in weights.items():
        if isinstance(value, Tensor) and value.is_floating_point() and not value.isfinite().all():
            raise CheckpointError(f'{name} holds values that are not finite; the training has diverged')
    meta = {'config': config.name, 'mmevm_version': __version__}
    dataset_meta = checkpoint.get('meta', {}).get('dataset_meta')
    if dataset_meta:
        meta['dataset_meta'] = dataset_meta
    weights = {
        name: value.detach().cpu().clone() if isinstance(value, Tensor) else value for name, value in weights.items()
    }
    return {'state_dict': weights, 'meta': meta}


def check_fit(model: nn.Module, content: dict[str, Any]) -> int:
    """Compares the weights strictly with the config's model, and keeps those of that model, named as it names them.

    Returns:
        int: Parameters of the model.

    Raises:
        CheckpointError: If a tensor is missing or of another shape, or left over from a part that the model has.
    """
    weights, report = fit_checkpoint(model, content['state_dict'])
    if report.fresh:
        left = report.fresh + report.dropped
        raise CheckpointError(f'The checkpoint does not fit the config: {len(left)} tensors differ, such as {left[0]}')
    report.log('the checkpoint')
    content['state_dict'] = weights
    return sum(parameter.numel() for parameter in model.parameters())


def write(content: dict[str, Any], folder: Path, stem: str) -> Path:
    """Writes ``<stem>-<first 8 digits of its SHA-256>.pth``, the form that download tools verify by its name."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    path = folder / f'{stem}-{hashlib.sha256(buffer.getvalue()).hexdigest()[:8]}.pth'
    write_file(path, buffer.getvalue())
    return path


def metafile_entry(args: argparse.Namespace, scope: str, path: Path, parameters: int) -> dict[str, Any]:
    """The file's entry under ``Models`` of a metafile."""
    entry: dict[str, Any] = {'Name': args.config.stem, 'Metadata': {'Parameters': parameters}}
    if args.metric:
        result = {'Task': TASKS[scope], 'Dataset': args.dataset, 'Metrics': dict(args.metric)}
        entry['Results'] = [result]
    entry['Config'] = f'configs/{args.config.name}'
    entry['Weights'] = f'{args.url.rstrip("/")}/{path.name}' if args.url else path.name
    entry['SHA256'] = hashlib.sha256(path.read_bytes()).hexdigest()
    return entry


def publish(args: argparse.Namespace) -> None:
    """Checks, strips and writes; says what lies where."""
    cfg = read_config(args.config)
    if not Path(args.checkpoint).expanduser().is_file():
        raise UsageError(f'Checkpoint not found: {Path(args.checkpoint).expanduser().absolute()}')
    scope = cfg.get('default_scope')
    if scope not in TASKS:
        raise UsageError(f'{args.config} must have a default_scope of {", ".join(TASKS)}, got {scope}')
    before = os.path.getsize(Path(args.checkpoint).expanduser())
    content = strip(load_file(args.checkpoint), args.config)
    parameters = check_fit(build_model(cfg), content)
    path = write(content, args.out, args.config.stem)
    load_file(path)  # as every user will
    metafile = path.with_suffix('.yml')
    entry = metafile_entry(args, scope, path, parameters)
    metafile.write_text(yaml.safe_dump({'Models': [entry]}, sort_keys=False))
    print(f'{path}: {path.stat().st_size / 1e6:.1f} MB of {before / 1e6:.1f} MB\n{metafile}: its metafile entry')


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of ``tools/publish_model.py``; returns the exit status."""
    args = parse_args(argv)
    return exit_status(lambda: publish(args))
