"""Train from a config: ``python tools/train.py CONFIG [--work-dir DIR] [--amp] [--resume] [--cfg-options …]``."""

import runpy
from pathlib import Path

runpy.run_path(str(Path(__file__).with_name('_signals.py')))
try:
    from mmevm.apis.train import main as train_main
except ModuleNotFoundError as error:
    runpy.run_path(str(Path(__file__).with_name('_interpreter.py')))['stop'](error)

if __name__ == '__main__':
    raise SystemExit(train_main())
