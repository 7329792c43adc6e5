"""Train a small detector on rendered pictures, evaluate it and draw what it finds: ``python tools/demo.py``.

Everything runs through the project's own tools, as for a real training: tools/make_mini_data.py, tools/train.py and
tools/test.py. On a CPU with two cores the training takes under ten minutes.
"""

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

from mmevm.visualization import draw_curves, draw_detection_sheet

ROOT = Path(__file__).resolve().parents[1]
CONFIG = 'configs/demo_retinanet_evm_t_mini.py'
DATA = Path('data/mini')
WORK = Path('work_dirs/demo')
_ROWS = {'bbox_mAP': 'AP   (IoU 0.50:0.95)', 'bbox_mAP_50': 'AP50 (IoU 0.50)', 'bbox_mAP_75': 'AP75 (IoU 0.75)',
         'bbox_mAP_s': 'AP   small', 'bbox_mAP_m': 'AP   medium', 'bbox_mAP_l': 'AP   large'}


def run_step(title: str, *command: str) -> float:
    """Run one of the project's tools with its output shown.

    Args:
        title (str): What the step does and how long it may take.
        *command (str): Path of the tool below the repository, and its arguments.

    Returns:
        float: Seconds it took.

    Raises:
        SystemExit: The tool failed; the message says which.
    """
    print(f'\n== {title}\n   python {" ".join(command)}', flush=True)
    start = time.perf_counter()
    status = subprocess.run([sys.executable, *command], cwd=ROOT, check=False).returncode
    if status:
        raise SystemExit(f'The demo stopped: {command[0]} failed with status {status}; its message stands above.')
    return time.perf_counter() - start


def newest(pattern: str) -> Path:
    """The newest file below the work folder that matches ``pattern``."""
    return max((ROOT / WORK).glob(pattern), key=lambda path: path.stat().st_mtime)


def make_data() -> None:
    """Render the miniature data set; the tool itself sees when the same one is already there."""
    run_step('Rendering miniature COCO, about a minute the first time', 'tools/make_mini_data.py', '--out', str(DATA),
             '--only', 'coco')


def report(minutes: float) -> None:
    """Draw the sheet and the curves; print the table of average precision and the pictures' paths."""
    metrics = json.loads(newest('test/*/*.json').read_text())
    coco = ROOT / DATA / 'coco'
    sheet = draw_detection_sheet(coco / 'annotations/instances_val2017.json', ROOT / WORK / 'results.bbox.json',
                                 coco / 'val2017', ROOT / WORK / 'predictions.png')
    curves = draw_curves(newest('*/vis_data/scalars.json'), ROOT / WORK / 'curves.png',
                         f'RetinaNet with EfficientVMamba-T on miniature COCO, {minutes:.1f} minutes of training')
    print(f'\n== Result on validation pictures that were not trained on, after {minutes:.1f} minutes of training')
    for key, label in _ROWS.items():
        value = metrics[f'coco/{key}']
        # COCO's evaluation writes -1 where no object has such a size.
        print(f'   {label:22s} {"–" if value < 0 else format(value, ".3f")}')
    print(f'   pictures with predictions: {sheet}\n   loss and AP over training:  {curves}')


def main() -> None:
    """Run the demo from data to pictures."""
    make_data()
    shutil.rmtree(ROOT / WORK, ignore_errors=True)
    seconds = run_step('Training from random weights, under 10 minutes on 2 CPU cores; "eta" tells what is left',
                       'tools/train.py', CONFIG, '--work-dir', str(WORK))
    run_step('Evaluating on unseen pictures, under a minute', 'tools/test.py', CONFIG,
             str(newest('epoch_*.pth').relative_to(ROOT)), '--work-dir', str(WORK / 'test'), '--cfg-options',
             f'test_evaluator.outfile_prefix={WORK / "results"}')
    report(seconds / 60)


if __name__ == '__main__':
    main()
