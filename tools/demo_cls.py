"""Train a small classifier on real handwritten digits and on miniature ImageNet: ``python tools/demo_cls.py [--keep]``.

Everything runs through the project's own tools, as for a real training. On a CPU with two cores it takes a few minutes.
"""

import pickle
import runpy
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for the package demo
try:
    from demo.baselines import constant_top1
    from demo.mini_data.digits import make_digits
    from demo.runs import ROOT, newest, parse_args, run_step, train_and_test
    from demo.visualization import Classified, draw_classification_sheet, draw_curves
except ModuleNotFoundError as error:
    runpy.run_path(str(Path(__file__).with_name('_interpreter.py')))['stop'](error)

DATA = Path('data/demo')
WORK = Path('work_dirs/demo_cls')
MINI = ('--only', 'imagenet', '--image-size', '128', '--train-images', '800', '--val-images', '160')


def read_results(path: Path) -> list[Classified]:
    """Read what ``tools/test.py --out`` wrote; the file is this demo's own."""
    rows = pickle.loads(path.read_bytes())
    return [Classified(row['img_path'], int(row['gt_label']), row['pred_score'].tolist()) for row in rows]


def train_labels(kind: str) -> list[int]:
    """Classes of the training pictures."""
    if kind == 'digits':
        return [int(path.parent.name) for path in (ROOT / DATA / kind / 'train').glob('*/*.png')]
    lines = (ROOT / DATA / 'imagenet/meta/train.txt').read_text(encoding='utf-8').splitlines()
    return [int(line.rsplit(' ', 1)[1]) for line in lines]


def class_names(kind: str) -> list[str]:
    """Names of all classes, the first of several."""
    if kind == 'digits':
        return [str(digit) for digit in range(10)]
    from mmpretrain.datasets.categories import IMAGENET_CATEGORIES

    return [name.split(',')[0] for name in IMAGENET_CATEGORIES]


def chosen(items: list[Classified]) -> list[Classified]:
    """Every so many pictures, twelve of all."""
    return items[:: max(1, len(items) // 12)][:12]


def run(kind: str, title: str, keep: bool) -> list[str]:
    """Train, evaluate and draw one data set; returns lines to report."""
    work = WORK / kind
    took, metrics = train_and_test(
        f'configs/demo_classifier_evm_t_{kind}.py', work, keep, '--out', str(work / 'results.pkl')
    )
    items = read_results(ROOT / work / 'results.pkl')
    baseline = constant_top1(train_labels(kind), [item.label for item in items])
    sheet = draw_classification_sheet(chosen(items), class_names(kind), ROOT / work / 'predictions.png')
    curves = draw_curves(newest(work, '*/vis_data/scalars.json'), ROOT / work / 'curves.png', f'{title}: {took}')
    return [
        f'{title}: {took}, {len(items)} unseen pictures',
        f'   top-1 {metrics["accuracy/top1"]:.1f} %, top-5 {metrics["accuracy/top5"]:.1f} %; '
        f'the most frequent class alone: {baseline:.1f} %',
        f'   pictures with their five likeliest classes: {sheet}',
        f'   loss and accuracy over training:            {curves}',
    ]


def main() -> None:
    """Run the demo from data to pictures."""
    args = parse_args(__doc__)
    make_digits(ROOT / DATA / 'digits')
    run_step('Rendering miniature ImageNet', 'tools/make_mini_data.py', '--out', str(DATA), *MINI)
    lines = run('digits', 'scikit-learn digits', args.keep) + run('mini', 'miniature ImageNet', args.keep)
    print('\n== Result\n' + '\n'.join(lines))


if __name__ == '__main__':
    main()
