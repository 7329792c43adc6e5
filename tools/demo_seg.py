"""Train a small segmentor on rendered images, evaluate and draw it: ``python tools/demo_seg.py [--keep]``.

Everything runs through the project's own tools, as for any training run. On a CPU with two cores it takes under ten
minutes.
"""

import runpy
import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for the package demo
try:
    import numpy as np
    from PIL import Image

    from demo.baselines import constant_miou
    from demo.figures import draw_curves, draw_segmentations
    from demo.runs import ROOT, newest, parse_args, run_step, train_and_test
except ModuleNotFoundError as error:
    runpy.run_path(str(Path(__file__).with_name('_interpreter.py')))['stop'](error)

CONFIG = 'configs/demo_upernet_evm_t_mini.py'
DATA = Path('data/demo')
ADE20K = ROOT / DATA / 'ade/ADEChallengeData2016'
WORK = Path('work_dirs/demo_seg')
MINI = ('--only', 'ade20k', '--image-size', '128', '--train-images', '480', '--val-images', '80')


def label_maps(split: str) -> Iterator[np.ndarray]:
    """Yield the ground truth of a split."""
    for path in sorted((ADE20K / 'annotations' / split).glob('*.png')):
        with Image.open(path) as image:
            yield np.array(image)


def main() -> None:
    """Run the demo from data to figures."""
    from mmseg.utils import ade_classes

    args = parse_args(__doc__)
    run_step('Rendering miniature ADE20K', 'tools/make_mini_data.py', '--out', str(DATA), *MINI)
    predictions = WORK / 'test/predictions'
    took, metrics = train_and_test(CONFIG, WORK, args.keep, '--cfg-options', f'test_evaluator.output_dir={predictions}')
    baseline = constant_miou(label_maps('training'), label_maps('validation'))
    names = dict(enumerate(ade_classes(), start=1))
    sheet = draw_segmentations(
        ADE20K / 'images/validation',
        ADE20K / 'annotations/validation',
        ROOT / predictions,
        names,
        ROOT / WORK / 'predictions.png',
    )
    curves = draw_curves(
        newest(WORK, '*/vis_data/scalars.json'),
        ROOT / WORK / 'curves.png',
        f'UperNet with EfficientVMamba-T on miniature ADE20K: {took}',
    )
    print(f'\n== Result on {len(list(label_maps("validation")))} unseen images: {took}')
    print(f'   mean IoU {metrics["mIoU"]:.1f} %; the most frequent class everywhere: {baseline:.1f} %')
    print(f'   pixel accuracy {metrics["aAcc"]:.1f} %')
    print(f'   overlays:                        {sheet}\n   loss and results over training:  {curves}')


if __name__ == '__main__':
    main()
