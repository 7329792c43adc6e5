"""Check a dataset of your own: ``python tools/check_data.py PATH [--out FILE.jpg]``."""

import runpy
from pathlib import Path

if __name__ == '__main__':
    runpy.run_path(str(Path(__file__).with_name('_interpreter.py')))['run']('mmevm.apis.check_data')
