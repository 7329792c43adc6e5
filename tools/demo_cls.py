"""Train a small classifier on real handwritten digits and on miniature ImageNet: ``python tools/demo_cls.py [--keep]``.

Everything runs through the project's own tools, as for any training run, and takes a few minutes on two CPU cores.
"""

import pickle
import runpy
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for the package demo
try:
    import numpy as np

    from demo.baselines import constant_top1
    from demo.figures import draw_classifications, draw_curves
    from demo.mini_data import make_digits
    from demo.runs import ROOT, newest, parse_args, run_step, train_and_test
except ModuleNotFoundError as error:
    runpy.run_path(str(Path(__file__).with_name('_interpreter.py')))['stop'](error)

DATA = Path('data/demo')
WORK = Path('work_dirs/demo_cls')
MINI = ('--only', 'imagenet', '--image-size', '128', '--train-images', '800', '--val-images', '160')


def read_results(path: Path) -> list[tuple[str, int, np.ndarray]]:
    """Read image, class and scores as ``tools/test.py --out`` wrote them; the file is this demo's own."""
    rows = pickle.loads(path.read_bytes())
    return [(row['img_path'], int(row['gt_label']), row['pred_score'].numpy()) for row in rows]


def train_labels(kind: str) -> list[int]:
    """Return the classes of the training images."""
    if kind == 'digits':
        return [int(path.parent.name) for path in (ROOT / DATA / kind / 'train').glob('*/*.png')]
    lines = (ROOT / DATA / 'imagenet/meta/train.txt').read_text(encoding='utf-8').splitlines()
    return [int(line.rsplit(' ', 1)[1]) for line in lines]


def class_names(kind: str) -> list[str]:
    """Return the names of all classes, the first of several."""
    if kind == 'digits':
        return [str(digit) for digit in range(10)]
    from mmpretrain.datasets.categories import IMAGENET_CATEGORIES

    return [name.split(',')[0] for name in IMAGENET_CATEGORIES]


def run(kind: str, title: str, keep: bool) -> list[str]:
    """Train, evaluate and draw one dataset; return lines to report."""
    work = WORK / kind
    took, metrics = train_and_test(
        f'configs/demo_classifier_evm_t_{kind}.py', work, keep, '--out', str(work / 'results.pkl')
    )
    items = read_results(ROOT / work / 'results.pkl')
    baseline = constant_top1(train_labels(kind), [label for _, label, _ in items])
    twelve = items[:: max(1, len(items) // 12)][:12]
    sheet = draw_classifications(twelve, class_names(kind), ROOT / work / 'predictions.png')
    curves = draw_curves(newest(work, '*/vis_data/scalars.json'), ROOT / work / 'curves.png', f'{title}: {took}')
    return [
        f'{title}: {took}, {len(items)} unseen images',
        f'   top-1 {metrics["accuracy/top1"]:.1f} %, top-5 {metrics["accuracy/top5"]:.1f} %; '
        f'the most frequent class alone: {baseline:.1f} %',
        f'   images with their five likeliest classes:   {sheet}',
        f'   loss and accuracy over training:            {curves}',
    ]


def main() -> None:
    """Run the demo from data to figures."""
    args = parse_args(__doc__)
    make_digits(ROOT / DATA / 'digits')
    run_step('Rendering miniature ImageNet', 'tools/make_mini_data.py', '--out', str(DATA), *MINI)
    lines = run('digits', 'scikit-learn digits', args.keep) + run('mini', 'miniature ImageNet', args.keep)
    print('\n== Result\n' + '\n'.join(lines))


if __name__ == '__main__':
    main()
