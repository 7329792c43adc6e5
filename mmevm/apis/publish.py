"""``tools/publish_model.py``: from a training checkpoint to the file and the metafile entry that others can load."""

import argparse
import hashlib
import io
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor, nn

from mmevm.apis.hub import Model, local_paths, require_folder, write_hub
from mmevm.apis.own_data import CONFIG, TEST_CONFIG
from mmevm.checkpoint import CheckpointError, fit_checkpoint, load_file
from mmevm.deploy.settings import names_fault, stored_names
from mmevm.engine.config import read_config
from mmevm.engine.runner.storage import write_file
from mmevm.engine.tasks import TASKS, build_model
from mmevm.errors import UsageError, exit_status
from mmevm.files import folder_fault
from mmevm.version import __version__

_OF_USERS_DATA = re.compile(r'^data_source\s*=', re.MULTILINE)  # in the config of a run with --data


def _metric(text: str) -> tuple[str, float]:
    name, _, value = (part.strip() for part in text.partition('='))
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not name or not math.isfinite(number):
        raise argparse.ArgumentTypeError(f'{text!r} is not of the form NAME=NUMBER, with a finite number')
    return name, number


def _folder(text: str) -> Path:
    if not text.strip():
        raise argparse.ArgumentTypeError('it is empty; give the name of a folder')
    return Path(text).expanduser()


def parse_args(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Parse the command line (default: the process's own) to the arguments of :func:`publish`."""
    parser = argparse.ArgumentParser(
        description='Strip a training checkpoint to its weights, name it by its hash, and write the metafile entry '
        'under which MIM and the inferencers can fetch it. Nothing is uploaded.'
    )
    parser.add_argument('config', type=Path, help='config that the checkpoint was trained with')
    parser.add_argument('checkpoint', help='checkpoint of the training run')
    parser.add_argument(
        '--name', help="the model's name (default: the config's, or for the config.py of a run its folder's)"
    )
    parser.add_argument('--out', type=_folder, default=Path('published'), metavar='DIR', help='default: published')
    parser.add_argument('--url', metavar='BASE', help='URL of the folder from which the file will be served')
    parser.add_argument(
        '--metric',
        dest='metrics',
        type=_metric,
        action='append',
        default=[],
        metavar='NAME=VALUE',
        help="what you measured, e.g. 'box AP=36.1'; may be repeated",
    )
    parser.add_argument('--dataset', default='unknown', help='dataset of the metrics, e.g. COCO')
    parser.add_argument(
        '--hub',
        type=_folder,
        metavar='FOLDER',
        help='also write a folder for the Hugging Face hub: safetensors and card',
    )
    parser.add_argument('--license', dest='licence', metavar='ID', help="licence of the weights on the hub's card")
    args = vars(parser.parse_args(argv))
    names = [name for name, _ in args['metrics']]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        parser.error(f'argument --metric: {", ".join(repeated)} is given more than once; give each metric one value')
    return dict(args, metrics=dict(args['metrics']))


def strip(checkpoint: dict[str, Any], config: Path) -> dict[str, Any]:
    """Return what is published of a checkpoint: weights on the CPU, class names and origin; no optimizer, log or paths.

    Under MMEngine's ``EMAHook`` the weights of a checkpoint are the averaged ones already.

    Args:
        checkpoint (dict): The content of a file.
        config (Path): Its config file.

    Returns:
        dict: ``state_dict`` and ``meta``.

    Raises:
        CheckpointError: There are no weights, or some are not finite.
    """
    bare = checkpoint and all(isinstance(value, Tensor) for value in checkpoint.values())
    weights = checkpoint if bare else checkpoint.get('state_dict')
    if not isinstance(weights, Mapping) or not weights:
        some = ', '.join(list(map(str, checkpoint))[:5]) or 'nothing'
        raise CheckpointError(
            f'The checkpoint has no weights under `state_dict`; its first entries are: {some}. '
            'Give a checkpoint of a training run, or a file of weights by name.'
        )
    for name, value in weights.items():
        if isinstance(value, Tensor) and value.is_floating_point() and not value.isfinite().all():
            raise CheckpointError(f'{name} holds values that are not finite; the training run has diverged')
    meta = {'config': config.name, 'mmevm_version': __version__}
    origin = checkpoint.get('meta')
    dataset_meta = origin.get('dataset_meta') if isinstance(origin, Mapping) else None
    if isinstance(dataset_meta, Mapping) and dataset_meta:
        meta['dataset_meta'] = _plain(dataset_meta)
    copies: dict[Any, Tensor] = {}  # what shares its memory is one tensor in the file, too
    for value in weights.values():
        if isinstance(value, Tensor) and _place(value) not in copies:
            copies[_place(value)] = value.detach().cpu().clone()
    weights = {name: copies[_place(value)] if isinstance(value, Tensor) else value for name, value in weights.items()}
    return {'state_dict': weights, 'meta': meta}


def _place(tensor: Tensor) -> tuple[Any, ...]:
    """Return what tensors have in common that are views of the same memory."""
    if tensor.layout != torch.strided or not tensor.numel():
        return (id(tensor),)
    return tensor.device, tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride()


def check_fit(model: nn.Module, content: dict[str, Any]) -> int:
    """Compare the weights strictly with the config's model, and keep those of the model under its names.

    Returns:
        int: The number of parameters of the model.

    Raises:
        CheckpointError: A tensor is missing, has another shape, or is left over from a part that the model has.
    """
    weights, report = fit_checkpoint(model, content['state_dict'])
    if report.fresh:
        left = report.fresh + report.dropped
        raise CheckpointError(f'The checkpoint does not fit the config: {len(left)} tensors differ, such as {left[0]}')
    report.log('the checkpoint')
    content['state_dict'] = weights
    return sum(parameter.numel() for parameter in model.parameters())


def check_names(cfg: Any, content: Mapping[str, Any]) -> None:
    """Check that there are names of as many classes as the model has, or none. Raises: CheckpointError: If not."""
    names = stored_names(content['meta'])
    if names is None:
        return
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        raise CheckpointError(f'The names of classes in the checkpoint must be a list of texts, got {names!r:.200}')
    fault = names_fault(cfg, names)
    if fault:
        raise CheckpointError(f'The checkpoint {fault}. Give a checkpoint of this config.')


def write(content: dict[str, Any], folder: Path, stem: str) -> Path:
    """Write ``<stem>-<first 8 digits of its SHA-256>.pth``, the form that download tools verify by its name."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    path = folder / f'{stem}-{hashlib.sha256(buffer.getvalue()).hexdigest()[:8]}.pth'
    write_file(path, buffer.getvalue())
    load_file(path)  # as every user will
    return path


def _require_writable(option: str, folder: Path) -> None:
    fault = folder_fault(folder)
    if fault:
        raise UsageError(f'{option} must be a folder that can be written, got {folder}: {fault}')


def _plain(value: Any) -> Any:
    """Return metadata as plain data, which JSON can hold, too: arrays and sets as lists, without what is neither."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items() if isinstance(key, str | int) and _is_data(item)}
    if isinstance(value, list | tuple):
        items = [_plain(item) for item in value if _is_data(item)]
        return tuple(items) if isinstance(value, tuple) else items
    if isinstance(value, set | frozenset):
        return sorted((_plain(item) for item in value if _is_data(item)), key=str)
    return value.tolist() if isinstance(value, Tensor | np.ndarray | np.generic) else value


def _is_data(value: Any) -> bool:
    kinds = Mapping | list | tuple | set | frozenset | Tensor | np.ndarray | np.generic | str | int | float | None
    return isinstance(value, kinds)


def publish(
    config: Path,
    checkpoint: str,
    *,
    name: str | None = None,
    out: Path = Path('published'),
    url: str | None = None,
    metrics: Mapping[str, float] | None = None,
    dataset: str = 'unknown',
    hub: Path | None = None,
    licence: str | None = None,
) -> None:
    """Check and strip a checkpoint, write it with its metafile entry, and print where both are.

    Args:
        config (Path): Config that it was trained with.
        checkpoint (str): The checkpoint file.
        name (str, optional): The model's name: by default the config's, or for a run's ``config.py`` its folder's.
        out (Path): Folder for the results.
        url (str, optional): URL of the folder from which the file will be served.
        metrics (Mapping[str, float], optional): Measured values by name.
        dataset (str): Dataset of the metrics.
        hub (Path, optional): Folder for what is uploaded to the Hugging Face hub.
        licence (str, optional): Identifier of the weights' licence, for the hub.
    """
    _require_writable('--out', out)
    if hub:
        _require_writable('--hub', hub)
        require_folder(hub)
    stem = config.absolute().parent.name if config.name in (CONFIG, TEST_CONFIG) else config.stem
    name = name or stem
    if Path(name).name != name or name in ('', '.', '..'):
        raise UsageError(f'The model needs a name that can be part of a file name, got {name!r}; give --name')
    cfg = read_config(config)
    source = Path(checkpoint).expanduser()
    if not source.is_file():
        raise UsageError(f'Checkpoint not found: {source.absolute()}')
    task = TASKS.get(cfg.get('default_scope'))
    if task is None:
        raise UsageError(f'{config} must have a default_scope of {", ".join(TASKS)}, got {cfg.get("default_scope")}')
    loaded = load_file(source)
    meta = loaded.get('meta')
    trained = str(meta.get('cfg')) if isinstance(meta, dict) else ''
    content = strip(loaded, config)
    try:
        parameters = check_fit(build_model(cfg), content)
    except CheckpointError as error:
        is_of_users_data = _OF_USERS_DATA.search(trained) and 'data_source' not in cfg
        hint = '\nIt was trained with --data: give the config.py of its work directory.' if is_of_users_data else ''
        raise CheckpointError(f'{source} for {config}: {error}{hint}') from error
    check_names(cfg, content)
    path = write(content, out, name)
    entry: dict[str, Any] = {'Name': name, 'Metadata': {'Parameters': parameters}}
    if metrics:
        entry['Results'] = [{'Task': task.name, 'Dataset': dataset, 'Metrics': dict(metrics)}]
    entry['Config'] = f'configs/{stem}.py'
    entry['Weights'] = f'{url.rstrip("/")}/{path.name}' if url else path.name
    entry['SHA256'] = hashlib.sha256(path.read_bytes()).hexdigest()
    metafile = path.with_suffix('.yml')
    metafile.write_text(yaml.safe_dump({'Models': [entry]}, sort_keys=False))
    sizes = path.stat().st_size, source.stat().st_size
    print(f'{path}: {sizes[0] / 1e6:.1f} MB of {sizes[1] / 1e6:.1f} MB\n{metafile}: its metafile entry')
    if hub:
        files = write_hub(hub, Model(name, cfg, content, parameters, metrics or {}, dataset, licence))
        print(f'{hub}: {", ".join(file.name for file in files)}; upload it with `hf upload USER/{name} {hub}`')
        if paths := local_paths(cfg):
            print(f'config.py names places on this machine; change what should not be seen: {", ".join(paths)}')


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``tools/publish_model.py`` and return its exit status."""
    args = parse_args(argv)
    return exit_status(lambda: publish(**args))
