"""Run first by the tools that take seconds to import: a signal ends them meanwhile, without a traceback."""

import os
import signal

for number in (signal.SIGINT, signal.SIGTERM):
    if signal.getsignal(number) != signal.SIG_IGN:
        signal.signal(number, lambda number, frame: os._exit(128 + number))
