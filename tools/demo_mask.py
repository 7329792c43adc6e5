"""Train a small Mask R-CNN on rendered images, evaluate and draw it: ``python tools/demo_mask.py [--keep]``.

Everything runs through the project's own tools, as for any training run. On a CPU with two cores it takes under ten
minutes.
"""

import runpy
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for the package demo
try:
    from demo.baselines import constant_mask_ap50
    from demo.figures import draw_curves, draw_detections
    from demo.runs import ROOT, newest, parse_args, run_step, train_and_test
except ModuleNotFoundError as error:
    runpy.run_path(str(Path(__file__).with_name('_interpreter.py')))['stop'](error)

CONFIG = 'configs/demo_mask_rcnn_evm_t_mini.py'
DATA = Path('data/mini')
COCO = ROOT / DATA / 'coco'
WORK = Path('work_dirs/demo_mask')


def main() -> None:
    """Run the demo from data to figures."""
    args = parse_args(__doc__)
    title = 'Rendering miniature COCO, about a minute the first time'
    run_step(title, 'tools/make_mini_data.py', '--out', str(DATA), '--only', 'coco')
    took, metrics = train_and_test(
        CONFIG, WORK, args.keep, '--cfg-options', f'test_evaluator.outfile_prefix={WORK / "results"}'
    )
    truth = COCO / 'annotations/instances_val2017.json'
    baseline = constant_mask_ap50(COCO / 'annotations/instances_train2017.json', truth)
    sheet = draw_detections(
        truth,
        ROOT / WORK / 'results.segm.json',
        COCO / 'val2017',
        ROOT / WORK / 'predictions.png',
        score_threshold=0.5,
        masks=True,
    )
    curves = draw_curves(
        newest(WORK, '*/vis_data/scalars.json'),
        ROOT / WORK / 'curves.png',
        f'Mask R-CNN with EfficientVMamba-T on miniature COCO: {took}',
    )
    print(f'\n== Result on unseen images: {took}')
    print(
        f'   mask AP50 {metrics["coco/segm_mAP_50"]:.3f}, mask AP {metrics["coco/segm_mAP"]:.3f}; '
        f'one typical mask a class in every image: AP50 {baseline:.3f}'
    )
    print(f'   box AP50 {metrics["coco/bbox_mAP_50"]:.3f}, box AP {metrics["coco/bbox_mAP"]:.3f}')
    print(f'   masks:                           {sheet}\n   loss and results over training:  {curves}')


if __name__ == '__main__':
    main()
