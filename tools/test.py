"""Evaluate a checkpoint: ``python tools/test.py CONFIG CHECKPOINT [--out FILE.pkl] [--show-dir DIR] [--tta] …``."""

import runpy
from pathlib import Path

runpy.run_path(str(Path(__file__).with_name('_signals.py')))
try:
    from mmevm.apis.evaluate import main as test_main
except ModuleNotFoundError as error:
    runpy.run_path(str(Path(__file__).with_name('_interpreter.py')))['stop'](error)

if __name__ == '__main__':
    raise SystemExit(test_main())
