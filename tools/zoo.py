"""Released checkpoints: ``python tools/zoo.py list | show NAME | download NAME | verify FILE | convert IN OUT``."""

import runpy
from pathlib import Path

if __name__ == '__main__':
    runpy.run_path(str(Path(__file__).with_name('_interpreter.py')))['run']('mmevm.zoo.__main__')
