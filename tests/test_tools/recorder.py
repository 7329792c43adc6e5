"""A hook for training runs under test: records images and losses, and can end the run as a kill does."""

import json
from pathlib import Path
from typing import Any

from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.registry import HOOKS


class Killed(BaseException):
    """Ends a run without giving it a chance to save."""


@HOOKS.register_module()
class Recorder(Hook):
    """Appends one JSON line per iteration to ``<folder>/rank<N>.jsonl``: its number, the loss and the images.

    Args:
        folder (str): Where the files go.
        kill_at (int | None): Raise :class:`Killed` when the iteration of this number begins.
    """

    def __init__(self, folder: str, kill_at: int | None = None) -> None:
        self.folder, self.kill_at = Path(folder), kill_at

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: dict | None = None) -> None:
        """Die where asked to."""
        if runner.iter == self.kill_at:
            raise Killed

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: dict | None = None, outputs: dict | None = None
    ) -> None:
        """Write the line."""
        self.folder.mkdir(exist_ok=True)
        images = [Path(sample.img_path).name for sample in data_batch['data_samples']]
        line = dict(iter=runner.iter, loss=outputs['loss'].item(), images=images)
        with open(self.folder / f'rank{get_rank()}.jsonl', 'a', encoding='utf-8') as file:
            file.write(json.dumps(line) + '\n')


def read(folder: Path, rank: int = 0) -> list[dict]:
    """The lines of one process."""
    return [json.loads(line) for line in (folder / f'rank{rank}.jsonl').read_text(encoding='utf-8').splitlines()]
