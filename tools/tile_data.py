"""Cut large images and their boxes into tiles: ``python tools/tile_data.py PATH OUT [--size 512] [--overlap 128]``."""

import runpy
from pathlib import Path

if __name__ == '__main__':
    runpy.run_path(str(Path(__file__).with_name('_interpreter.py')))['run']('mmevm.apis.tile_data')
