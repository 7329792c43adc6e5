"""Which token sees which in ES2D, SS2D and Vim: ``python tools/analysis/scan_order.py --out scan_order.png``."""

import runpy
from pathlib import Path

try:
    from mmevm.cli.scan_order import main
except ModuleNotFoundError as error:
    runpy.run_path(str(Path(__file__).parents[1] / '_interpreter.py'))['stop'](error)

if __name__ == '__main__':
    raise SystemExit(main())
