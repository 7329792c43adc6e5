"""The checkpoint that ``--resume`` continues from: the newest in the run's own folder that opens."""

import os
import re
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mmengine.hooks import CheckpointHook

from mmevm.checkpoint import CheckpointError, load_file
from mmevm.errors import UsageError

_TEMPLATES = ('epoch_{}.pth', 'iter_{}.pth')


@dataclass(frozen=True)
class Candidate:
    """A checkpoint that a training run can continue from.

    Attributes:
        path (str): The file.
        session (str): When the process that wrote it was started.
        epoch (int): Whole epochs that are done.
        iteration (int): Iterations that are done.
        seed (int | None): Of its run.
        skipped (tuple[str, ...]): Why other files cannot be continued from.
    """

    path: str
    session: str
    epoch: int
    iteration: int
    seed: int | None
    skipped: tuple[str, ...] = ()

    @property
    def age(self) -> tuple:
        """What is greater for a newer one: files that a later run left behind it count less than those it wrote."""
        return self.session, self.epoch, self.iteration


def is_type(kind: Any, cls: type) -> bool:
    """Whether a config's ``type``, a name or the class itself, means one of MMEngine's classes."""
    if not isinstance(kind, str):
        return kind is cls
    scope, _, name = kind.rpartition('.')
    return name == cls.__name__ and scope.split('.')[0] in ('', 'mmengine')


def checkpoint_hooks(cfg: Any) -> list[dict]:
    """The settings of a config's checkpoint hooks."""
    hooks = [(cfg.get('default_hooks') or {}).get('checkpoint'), *(cfg.get('custom_hooks') or [])]
    return [
        hook
        for hook in hooks
        if isinstance(hook, dict)
        and (is_type(hook.get('type'), CheckpointHook) or hook.get('type') == 'mmevm.DurableCheckpointHook')
    ]


def checkpoint_folders(cfg: Any) -> list[Path]:
    """The local folders that a config's training run saves checkpoints in, its work folder first."""
    folders = [Path(cfg.work_dir)]
    for hook in checkpoint_hooks(cfg):
        if hook.get('out_dir') and '://' not in str(hook['out_dir']):
            folders.append(Path(hook['out_dir']) / Path(cfg.work_dir).name)
    return list(dict.fromkeys(folder.absolute() for folder in folders))


def saved_checkpoints(cfg: Any) -> list[Path]:
    """The checkpoints in these folders by the names that the config gives them, whether they open or not."""
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
        CheckpointError: It does not open.
    """
    if os.path.isdir(path):
        raise CheckpointError(f'{path} is a folder of sharded checkpoints, which cannot be opened as data only')
    meta = load_file(path, mmap=zipfile.is_zipfile(path)).get('meta')
    return meta if isinstance(meta, dict) else {}


def seed_of(meta: dict) -> int | None:
    """The seed of the run that wrote a checkpoint."""
    seed = meta.get('seed')
    return seed if isinstance(seed, int) else None


def _candidate(path: Path) -> Candidate:
    meta = read_meta(path)
    if not all(isinstance(meta.get(key), int) for key in ('epoch', 'iter')):
        raise CheckpointError(f'{path} has weights and no state of a training run')
    session = re.search(r'\d{8}_\d{6}$', str(meta.get('experiment_name', '')))
    return Candidate(str(path), session[0] if session else '', meta['epoch'], meta['iter'], seed_of(meta))


def _require_intact(path: str) -> None:
    # torch reads tensors without looking at the checksums that it wrote.
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
        if damaged:
            raise CheckpointError(f'Cannot read {path}: the checksum of {damaged} differs, the file is damaged')


def _refusal(cfg: Any, faults: list[str]) -> UsageError:
    return UsageError(
        '\n'.join(
            [
                f'--resume finds a training run in {os.path.abspath(cfg.work_dir)}, '
                'and no checkpoint to continue from:',
                *(f'  {fault}' for fault in faults),
                'To continue from another file: --resume CHECKPOINT. To begin anew: move these files away, '
                'or choose another folder with --work-dir.',
            ]
        )
    )


def _without_checkpoints(cfg: Any) -> str | None:
    """What else tells of a training run whose checkpoints are not in its folders: a remote one that is noted."""
    note = Path(cfg.work_dir, 'last_checkpoint')
    named = note.read_text(encoding='utf-8').strip() if note.is_file() else ''
    if '://' in named:
        return named
    faults = [
        f'{path} has weights alone, as the best checkpoints do'
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
    """Find the checkpoint with which the last run in a config's folders got furthest.

    MMEngine's own note, ``last_checkpoint``, holds an absolute path: that of another folder after copying, and of
    nothing after moving.

    Args:
        cfg (Config): With ``work_dir``.

    Returns:
        Candidate | None: None if no run has saved anything yet.

    Raises:
        UsageError: There are checkpoints, and none of them can be continued from.
    """
    paths = saved_checkpoints(cfg)
    if not paths:
        remote = _without_checkpoints(cfg)
        return Candidate(remote, '', 0, 0, None) if remote else None
    candidates, faults = [], []
    for path in paths:
        try:
            candidates.append(_candidate(path))
        except CheckpointError as error:
            faults.append(str(error))
    for candidate in sorted(candidates, key=lambda candidate: candidate.age, reverse=True):
        try:
            _require_intact(candidate.path)
            return replace(candidate, skipped=tuple(faults))
        except CheckpointError as error:
            faults.append(str(error))
    raise _refusal(cfg, faults)
