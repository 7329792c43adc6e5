"""Effective receptive fields: ``python tools/analysis/erf.py EfficientVMamba:tiny VMamba:tiny Vim:tiny``."""

import runpy
from pathlib import Path

try:
    from mmevm.cli.erf import main
except ModuleNotFoundError as error:
    runpy.run_path(str(Path(__file__).parents[1] / '_interpreter.py'))['stop'](error)

if __name__ == '__main__':
    raise SystemExit(main())
