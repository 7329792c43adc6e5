"""Released checkpoints: ``python tools/zoo.py list | show NAME | download NAME | verify FILE | convert IN OUT``."""

import runpy
from pathlib import Path

try:
    from mmevm.zoo.__main__ import main
except ModuleNotFoundError as error:
    runpy.run_path(str(Path(__file__).with_name('_interpreter.py')))['stop'](error)

if __name__ == '__main__':
    raise SystemExit(main())
