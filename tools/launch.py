"""torchrun with the exit status of a signal or of the first process that failed, for ``tools/dist_train.sh``.

torchrun itself exits with status 1 and prints its own traceback below the output of the processes.
"""

import os
import runpy
import sys
from pathlib import Path

try:
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import main
except ModuleNotFoundError as error:
    runpy.run_path(str(Path(__file__).with_name('_interpreter.py')))['stop'](error)


def run() -> int:
    """Run torchrun with this process's arguments and return its exit status."""
    # torchrun's defaults, and what Slurm's --signal can send.
    os.environ.setdefault('TORCHELASTIC_SIGNALS_TO_HANDLE', 'SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1,SIGUSR2')
    try:
        main()
    except SignalException as signal:
        return 128 + signal.sigval
    except ChildFailedError as error:
        _, failure = error.get_first_failure()
        return failure.exitcode if failure.exitcode > 0 else 128 - failure.exitcode
    return 0


if __name__ == '__main__':
    sys.exit(run())
