"""Export a model to one ONNX file: ``python tools/export.py CONFIG [CHECKPOINT] --out model.onnx …``."""

import runpy
from pathlib import Path

if __name__ == '__main__':
    runpy.run_path(str(Path(__file__).with_name('_interpreter.py')))['run']('mmevm.deploy.export')
