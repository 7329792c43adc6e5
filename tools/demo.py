"""Train a small detector on rendered images, evaluate it and draw its predictions: ``python tools/demo.py [--keep]``.

Everything runs through the project's own tools, as for any training run: tools/make_mini_data.py, tools/train.py and
tools/test.py. On a CPU with two cores the training takes five minutes.
"""

import runpy
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for the package demo
try:
    from demo.figures import draw_curves, draw_detections
    from demo.runs import ROOT, newest, parse_args, run_step, train_and_test
except ModuleNotFoundError as error:
    runpy.run_path(str(Path(__file__).with_name('_interpreter.py')))['stop'](error)

CONFIG = 'configs/demo_retinanet_evm_t_mini.py'
DATA = Path('data/mini')
WORK = Path('work_dirs/demo')
_ROWS = {
    'bbox_mAP': 'AP   (IoU 0.50:0.95)',
    'bbox_mAP_50': 'AP50 (IoU 0.50)',
    'bbox_mAP_75': 'AP75 (IoU 0.75)',
    'bbox_mAP_s': 'AP   small',
    'bbox_mAP_m': 'AP   medium',
    'bbox_mAP_l': 'AP   large',
}


def make_data() -> None:
    """Render the miniature dataset, unless it exists."""
    title = 'Rendering miniature COCO, about a minute the first time'
    run_step(title, 'tools/make_mini_data.py', '--out', str(DATA), '--only', 'coco')


def report(took: str, metrics: dict[str, float]) -> None:
    """Draw the sheet and the curves; print the table of average precision and the paths of the figures."""
    coco = ROOT / DATA / 'coco'
    sheet = draw_detections(
        coco / 'annotations/instances_val2017.json',
        ROOT / WORK / 'results.bbox.json',
        coco / 'val2017',
        ROOT / WORK / 'predictions.png',
    )
    curves = draw_curves(
        newest(WORK, '*/vis_data/scalars.json'),
        ROOT / WORK / 'curves.png',
        f'RetinaNet with EfficientVMamba-T on miniature COCO: {took}',
    )
    print(f'\n== Result on unseen validation images: {took}')
    for key, label in _ROWS.items():
        value = metrics[f'coco/{key}']
        # COCO's evaluation writes -1 where no object has such a size.
        print(f'   {label:22s} {"–" if value < 0 else format(value, ".3f")}')
    print(f'   images with predictions:   {sheet}\n   loss and AP over training:  {curves}')


def main() -> None:
    """Run the demo from data to figures."""
    args = parse_args(__doc__)
    make_data()
    report(
        *train_and_test(CONFIG, WORK, args.keep, '--cfg-options', f'test_evaluator.outfile_prefix={WORK / "results"}')
    )


if __name__ == '__main__':
    main()
