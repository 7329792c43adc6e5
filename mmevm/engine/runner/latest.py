"""The checkpoint that ``--resume`` continues from: the newest one in the run's own folder that can be loaded."""

import os
import re
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

from mmengine.hooks import CheckpointHook

from mmevm.checkpoint import CheckpointError, load_file
from mmevm.engine.hooks.checkpoint import DurableCheckpointHook
from mmevm.errors import UsageError
from mmevm.files import archive_damage
from mmevm.registry import type_name

_TEMPLATES = ('epoch_{}.pth', 'iter_{}.pth')


class Candidate(NamedTuple):
    """A checkpoint that a training run can continue from.

    Attributes:
        age (tuple): Start of the process that wrote it, completed epochs, completed iterations: greater is newer.
        path (str): The file.
        seed (int | None): The seed of its run.
        skipped (tuple[str, ...]): Why other files cannot be used.
    """

    age: tuple[str, int, int]
    path: str
    seed: int | None
    skipped: tuple[str, ...] = ()


def is_type(settings: Any, *classes: type) -> bool:
    """Return whether a config's ``type``, a name or the class itself, means a class of MMEngine's or mmevm's."""
    kind = settings.get('type') if isinstance(settings, dict) else None
    if not isinstance(kind, str):
        return kind in classes
    is_ours = '.' not in kind or kind.startswith(('mmengine.', 'mmevm.'))
    return is_ours and type_name(settings) in {cls.__name__ for cls in classes}


def checkpoint_hooks(cfg: Any) -> list[dict]:
    """Return the settings of a config's checkpoint hooks."""
    hooks = [(cfg.get('default_hooks') or {}).get('checkpoint'), *(cfg.get('custom_hooks') or [])]
    return [hook for hook in hooks if is_type(hook, CheckpointHook, DurableCheckpointHook)]


def checkpoint_folders(cfg: Any) -> list[Path]:
    """Return the local folders that a training run saves checkpoints in, its work directory first."""
    folders = [Path(cfg.work_dir)]
    for hook in checkpoint_hooks(cfg):
        if hook.get('out_dir') and '://' not in str(hook['out_dir']):
            folders.append(Path(hook['out_dir']) / Path(cfg.work_dir).name)
    return list(dict.fromkeys(folder.absolute() for folder in folders))


def saved_checkpoints(cfg: Any) -> list[Path]:
    """Return the files in these folders with the names of checkpoints, whether they can be loaded or not."""
    templates = {*_TEMPLATES, *(hook['filename_tmpl'] for hook in checkpoint_hooks(cfg) if hook.get('filename_tmpl'))}
    names = re.compile('|'.join(re.escape(template).replace(r'\{\}', r'\d+') for template in sorted(templates)))
    return [
        path
        for folder in checkpoint_folders(cfg)
        if folder.is_dir()
        for path in sorted(folder.iterdir())
        if names.fullmatch(path.name)
    ]


def read_meta(path: str | os.PathLike) -> dict:
    """Read a checkpoint's ``meta``, without its tensors.

    Raises:
        CheckpointError: It cannot be loaded.
    """
    if os.path.isdir(path):
        raise CheckpointError(f'{path} is a folder of sharded checkpoints, which cannot be loaded weights-only')
    meta = load_file(path, mmap=zipfile.is_zipfile(path)).get('meta')
    return meta if isinstance(meta, dict) else {}


def seed_of(meta: dict) -> int | None:
    """Return the seed of the run that wrote a checkpoint."""
    seed = meta.get('seed')
    return seed if isinstance(seed, int) else None


def _candidate(path: Path) -> Candidate:
    meta = read_meta(path)
    if not all(isinstance(meta.get(key), int) for key in ('epoch', 'iter')):
        raise CheckpointError(f'{path} contains weights only, not the state of a training run')
    session = re.search(r'\d{8}_\d{6}$', str(meta.get('experiment_name', '')))
    age = session[0] if session else '', meta['epoch'], meta['iter']
    return Candidate(age, str(path), seed_of(meta))


def _require_intact(path: str) -> None:
    if damage := archive_damage(path):
        raise CheckpointError(f'Cannot read {path}: {damage}, the file is damaged')


def _refusal(cfg: Any, faults: list[str]) -> UsageError:
    lines = [
        f'--resume finds a training run in {os.path.abspath(cfg.work_dir)}, and no checkpoint to continue from:',
        *(f'  {fault}' for fault in faults),
        'To continue from another file: --resume CHECKPOINT. To start over: move these files away, or choose another '
        'folder with --work-dir.',
    ]
    return UsageError('\n'.join(lines))


def _without_checkpoints(cfg: Any) -> str | None:
    """Return a remote checkpoint that a run without local ones has recorded; refuse other traces of such a run."""
    note = Path(cfg.work_dir, 'last_checkpoint')
    named = note.read_text(encoding='utf-8').strip() if note.is_file() else ''
    if '://' in named:
        return named
    faults = [
        f'{path} contains weights only, as the best checkpoints do'
        for folder in checkpoint_folders(cfg)
        for path in sorted(folder.glob('best_*.pth'))
    ]
    if named:
        where = 'is in another folder' if os.path.isfile(named) else 'is not there'
        faults.append(f'{note} names {named}, which {where}')
    if faults:
        raise _refusal(cfg, faults)
    return None


def find_latest(cfg: Any) -> Candidate | None:
    """Find the most advanced checkpoint of the last run in a config's folders.

    MMEngine's own record, ``last_checkpoint``, has an absolute path, which is wrong after the folder was copied or
    moved.

    Args:
        cfg (Config): With ``work_dir``.

    Returns:
        Candidate | None: None if no run has saved anything yet.

    Raises:
        UsageError: There are checkpoints, but none to continue from.
    """
    paths = saved_checkpoints(cfg)
    if not paths:
        remote = _without_checkpoints(cfg)
        return Candidate(('', 0, 0), remote, seed=None) if remote else None
    candidates, faults = [], []
    for path in paths:
        try:
            candidates.append(_candidate(path))
        except CheckpointError as error:
            faults.append(str(error))
    for candidate in sorted(candidates, key=lambda candidate: candidate.age, reverse=True):
        try:
            _require_intact(candidate.path)
            return candidate._replace(skipped=tuple(faults))
        except CheckpointError as error:
            faults.append(str(error))
    raise _refusal(cfg, faults)
