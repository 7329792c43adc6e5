"""Running tests/test_tools/toy.py in this process or in another one."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mmevm.apis.train import main as train_main

from ..runs import forget_runs
from .small_classifier import ROOT
from .toy import CONFIG, read

Train = Callable[..., str]
# By config, the lines of a run that nothing interrupts.
_EXPECTED: dict[str, list[dict]] = {}


class Toy:
    """A folder with a config, in which training runs are started.

    Args:
        folder (Path): The current folder.
        capfd (pytest.CaptureFixture): Of the test.
    """

    def __init__(self, folder: Path, capfd: pytest.CaptureFixture) -> None:
        self.folder, self.work, self.capfd = folder, folder / 'work', capfd
        self.configure()

    def configure(self, more: str = '') -> None:
        """Rewrite the config with changes."""
        (self.folder / 'config.py').write_text(CONFIG + more)

    def command(self, *flags: Any, options: str = '') -> list[str]:
        """Arguments of tools/train.py."""
        changes = ['--cfg-options', *options.split()] if options else []
        return ['config.py', '--work-dir', 'work', *map(str, flags), *changes]

    def train(self, *flags: Any, options: str = '', status: int = 0) -> str:
        """Train in this process; returns the output, each message of which has a line."""
        forget_runs()
        self.capfd.readouterr()
        got = train_main(self.command(*flags, options=options))
        out, err = self.capfd.readouterr()
        assert got == status, (out + err)[-4000:]
        return out + err

    def expected(self) -> list[dict]:
        """Return the lines of an uninterrupted run with the current config, which is trained once."""
        config = (self.folder / 'config.py').read_text()
        if config not in _EXPECTED:
            self.train('--work-dir', 'uninterrupted')
            _EXPECTED[config] = read(self.folder)
        return _EXPECTED[config]

    def start(self, *flags: Any, options: str = '', processes: int = 0, port: int = 0) -> subprocess.Popen:
        """Train in another process, which leads a group, or in several."""
        program = [ROOT / 'tools/train.py', *self.command(*flags, options=options)]
        if processes:
            program = [
                ROOT / 'tools/launch.py',
                f'--nproc_per_node={processes}',
                f'--master_port={port}',
                *program,
                '--launcher',
                'pytorch',
            ]
        environment = {**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONPATH': str(ROOT)}
        return subprocess.Popen(
            [sys.executable, *map(str, program)],
            cwd=self.folder,
            env=environment,
            start_new_session=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            preexec_fn=default_signals,
        )

    def names(self) -> list[str]:
        """The checkpoints in the work directory."""
        return sorted(path.name for path in self.work.glob('*.pth'))


def default_signals() -> None:
    """Let a process heed the signals that whoever started the tests may ignore, as a background job does."""
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)


def lines(text: str, pattern: str) -> list[str]:
    """Return the lines of an output that match a pattern."""
    return [line for line in text.splitlines() if re.search(pattern, line)]
