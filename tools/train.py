"""Train from a config: ``python tools/train.py CONFIG [--work-dir DIR] [--amp] [--resume] [--cfg-options …]``."""

import runpy
from pathlib import Path

if __name__ == '__main__':
    runpy.run_path(str(Path(__file__).with_name('_interpreter.py')))['run']('mmevm.apis.train')
