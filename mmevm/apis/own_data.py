"""``--data PATH``: a user's dataset instead of a config's own."""

import copy
import logging
import os
from pathlib import Path
from typing import Any

from mmengine.logging import print_log

from mmevm.apis.exported import SUFFIX, open_exported
from mmevm.data.adaptation import adapt, check_fit, require_task
from mmevm.data.checks import leave_out
from mmevm.data.classes import match_classes
from mmevm.data.reading import read_data
from mmevm.data.records import UserData
from mmevm.data.sheet import draw_sheet
from mmevm.data.summary import describe, listing, refusal
from mmevm.engine.checks.datasets import leaves
from mmevm.engine.runner.distributed import is_first_process, process_count
from mmevm.engine.runner.latest import read_meta
from mmevm.engine.tasks import mask_part
from mmevm.errors import UsageError
from mmevm.files import replacing

SHEET = 'contact_sheet.jpg'
"""The name of the contact sheet in a work directory."""

CONFIG, TEST_CONFIG = 'config.py', 'test_config.py'
"""The names of the configs that training and evaluation save there."""


def use_data(cfg: Any, path: str, config: str, skip_broken: bool = False, checkpoint: str | None = None) -> None:
    """Make a config train on a user's dataset or evaluate it, after checking and showing it.

    Lists of images go to ``data/`` in the work directory, under names that no other run changes, and a contact sheet
    goes beside it. The user's folder is never written to.

    Args:
        cfg (Config): Changed in place.
        path (str): The dataset, in any layout that :func:`mmevm.data.reading.read_data` knows.
        config (str): The config file, for messages.
        skip_broken (bool): Leave out images and objects that cannot be used.
        checkpoint (str, optional): The model to evaluate; without one, the config is for training.

    Raises:
        UsageError: The dataset has problems or is one for another task.
    """
    kind = require_task(cfg, config)
    meta = _meta(checkpoint)
    trained = None if checkpoint is None else str(meta.get('cfg', ''))
    data = read_data(path, kind, skip_broken, trained, with_shapes=mask_part(cfg) is not None)
    # check_data.py does not see the config, so it cannot list what only this config rejects.
    command = f'python tools/check_data.py {path}' if refusal(data) else None
    check_fit(cfg, data, config, process_count(cfg.launcher))
    if skip_broken:
        leave_out(data)  # what only this config cannot use
    if names := (meta.get('dataset_meta') or {}).get('classes'):
        match_classes(data, list(names))
    is_first = is_first_process(cfg.launcher)
    _require_usable(data, command, is_first)
    adapt(cfg, data, Path(os.path.abspath(cfg.work_dir)) / 'data')
    if data.redrawn:
        _compare_lists(cfg, data, trained or '')
    if is_first:
        _show(data, Path(cfg.work_dir) / SHEET)


def _compare_lists(cfg: Any, data: UserData, trained: str) -> None:
    """Note that a dataset has changed since a model was trained on its other part; lists are named by their content."""
    for leaf in leaves(cfg, ('test',)):
        digest = Path(leaf.settings['ann_file']).stem.rpartition('-')[2]
        if digest not in trained:
            data.findings.note(
                'The validation split was drawn again and is not that of the training run: the dataset or '
                '--skip-broken has changed. The model may have been trained on some of its images'
            )
            return


def _meta(checkpoint: str | None) -> dict[str, Any]:
    """Return what a checkpoint or an exported model says of itself."""
    if checkpoint is None or '://' in checkpoint:
        return {}
    if checkpoint.endswith(SUFFIX):
        return {'dataset_meta': {'classes': open_exported(checkpoint).names}}
    return read_meta(os.path.expanduser(checkpoint))


def _require_usable(data: UserData, command: str | None, is_first: bool) -> None:
    message = refusal(data)
    if message:
        if is_first:
            print_log(describe(data), logger='current')
        raise UsageError(f'{message}\nThe whole list: {command}' if command else message)


def _show(data: UserData, sheet: Path) -> None:
    print_log(describe(data), logger='current')
    for line in listing(data.findings.notes):
        print_log(line, logger='current', level=logging.WARNING)
    if drawn := draw_sheet(data, sheet):
        print_log(f'Some of the images with their annotations: {drawn}', logger='current')


def save_config(cfg: Any, name: str = CONFIG) -> Path:
    """Write a config to its work directory, from where it works without ``--data``.

    Args:
        cfg (Config): A config that was adapted.
        name (str): The name of the file.

    Returns:
        Path: The file.
    """
    cfg = copy.deepcopy(cfg)
    cfg.work_dir = os.path.abspath(cfg.work_dir)  # where its checkpoints are, from any folder
    path, text = Path(cfg.work_dir) / name, cfg.pretty_text
    with replacing(path) as draft:
        draft.write_text(text, encoding='utf-8')
    return path
