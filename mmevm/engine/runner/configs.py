"""The config that a runner writes to its work directory."""

import copy
import os
from typing import Any

from mmengine.config import Config


def renamed(cfg: Any, path: str) -> Config:
    """Return a config under another name, which a runner gives to the file that it writes."""
    other = copy.copy(cfg)
    object.__setattr__(other, '_filename', path)  # Config keeps what is set as a part of the config
    return other


def keeping_configs(runner_class: type) -> Any:
    """Return a runner's class that does not write its config over the file that it was read from.

    MMEngine writes the config of every run to the work directory, under the name of its file and with what concerns
    this run alone. Run from the config that an earlier run has left there, it would replace that.
    """
    return type(runner_class.__name__, (_Keeping, runner_class), {})


class _Keeping:
    cfg: Any
    work_dir: str

    def dump_config(self) -> None:
        """Write the config, unless it is from here; a run from the file shall begin, also where this one resumes."""
        source = self.cfg.filename
        target = os.path.join(self.work_dir, os.path.basename(source or ''))
        if source and os.path.exists(source) and os.path.exists(target) and os.path.samefile(source, target):
            return
        cfg = self.cfg
        if cfg.get('resume'):
            self.cfg = copy.deepcopy(cfg)
            self.cfg.resume, self.cfg.load_from = False, None
        try:
            super().dump_config()  # type: ignore[misc]
        finally:
            self.cfg = cfg
