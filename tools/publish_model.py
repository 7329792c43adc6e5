"""Prepare a checkpoint for publishing: ``python tools/publish_model.py CONFIG CHECKPOINT [--url BASE] …``."""

import runpy
from pathlib import Path

if __name__ == '__main__':
    runpy.run_path(str(Path(__file__).with_name('_interpreter.py')))['run']('mmevm.apis.publish')
