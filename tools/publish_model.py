"""Make a checkpoint ready for others: ``python tools/publish_model.py CONFIG CHECKPOINT [--url BASE] …``."""

import runpy
from pathlib import Path

try:
    from mmevm.apis.publish import main
except ModuleNotFoundError as error:
    runpy.run_path(str(Path(__file__).with_name('_interpreter.py')))['stop'](error)

if __name__ == '__main__':
    raise SystemExit(main())
