"""A headless Chromium that evaluates JavaScript in a page: the DevTools protocol over a pipe."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

CHROMIUM = next(
    (found for name in ('chromium', 'chromium-browser', 'google-chrome') if (found := shutil.which(name))), None
)


class Page:
    """One page of a running browser."""

    session: str | None = None
    folder: Path

    def __init__(self, to_browser: int, from_browser: int) -> None:
        self.writer, self.reader = to_browser, from_browser
        self.number, self.buffer = 0, b''
        target = self.call('Target.createTarget', url='about:blank')['targetId']
        self.session = self.call('Target.attachToTarget', targetId=target, flatten=True)['sessionId']

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command and return its result."""
        self.number += 1
        message = {'id': self.number, 'method': method, 'params': parameters}
        message |= {'sessionId': self.session} if self.session else {}
        os.write(self.writer, json.dumps(message).encode() + b'\0')
        while True:
            while b'\0' not in self.buffer:
                self.buffer += os.read(self.reader, 1 << 20)
            line, self.buffer = self.buffer.split(b'\0', 1)
            answer = json.loads(line)
            if answer.get('id') == self.number:
                assert 'error' not in answer, answer['error']
                return answer['result']

    def evaluate(self, expression: str) -> Any:
        """Return the value of an expression, awaited if it is a promise."""
        result = self.call('Runtime.evaluate', expression=expression, awaitPromise=True, returnByValue=True)
        assert 'exceptionDetails' not in result, result['exceptionDetails']
        return result['result'].get('value')


@contextmanager
def open_page(profile: Path) -> Iterator[Page]:
    """Start a browser with a profile folder; end it with the context."""
    read_commands, commands = os.pipe()
    answers, write_answers = os.pipe()

    def connect() -> None:
        # Chromium reads commands from descriptor 3 and writes answers to 4.
        os.dup2(read_commands, 13)
        os.dup2(write_answers, 14)
        os.dup2(13, 3)
        os.dup2(14, 4)

    flags = ['--headless=new', '--no-sandbox', '--disable-gpu', '--remote-debugging-pipe', f'--user-data-dir={profile}']
    process = subprocess.Popen(
        [str(CHROMIUM), *flags],
        preexec_fn=connect,
        close_fds=False,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(read_commands)
    os.close(write_answers)
    try:
        yield Page(commands, answers)
    finally:
        process.kill()
        process.wait()
        for descriptor in (commands, answers):
            with suppress(OSError):
                os.close(descriptor)
