"""Train a narrow classifier on Fashion-MNIST: ``python tools/demo_fashion.py [--keep] [--model evm|vmamba|vim]``.

The 60,000 photographs of clothes come with the Debian package dataset-fashion-mnist, which is downloaded unless it is
installed. Everything runs through the project's own tools, as for any training run.
"""

import pickle
import runpy
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for the package demo
try:
    import numpy as np

    from demo.baselines import constant_top1
    from demo.fashion import make_fashion, read_images, read_labels
    from demo.figures import draw_classifications, draw_curves
    from demo.runs import ROOT, newest, parse_args, train_and_test
except ModuleNotFoundError as error:
    runpy.run_path(str(Path(__file__).with_name('_interpreter.py')))['stop'](error)

DATA = Path('data/demo/fashion-mnist')
WORK = Path('work_dirs/demo_fashion')
MODELS = ('evm', 'vmamba', 'vim')
CLASSES = 'T-shirt trouser pullover dress coat sandal shirt sneaker bag boot'.split()
SHOWN = 12


def report(work: Path, took: str, metrics: dict[str, float]) -> None:
    """Draw images and curves; print the accuracy beside that of the most frequent class."""
    data = ROOT / DATA
    # The file is this demo's own.
    scores = [row['pred_score'].numpy() for row in pickle.loads((ROOT / work / 'results.pkl').read_bytes())]
    labels = read_labels(data)
    wrong = np.flatnonzero(np.argmax(scores, axis=1) != labels)
    # The first images, and the first mistakes.
    shown = [*range(min(SHOWN // 2, len(labels))), *wrong[: SHOWN // 2].tolist()]
    items = [(read_images(data)[index], int(labels[index]), scores[index]) for index in shown]
    sheet = draw_classifications(items, CLASSES, ROOT / work / 'predictions.png')
    curves = draw_curves(newest(work, '*/vis_data/scalars.json'), ROOT / work / 'curves.png', f'Fashion-MNIST: {took}')
    print(
        f'\n== Result on {len(labels)} test images: {took}\n'
        f'   top-1 {metrics["accuracy/top1"]:.2f} %; the most frequent class alone: '
        f'{constant_top1(read_labels(data, "train").tolist(), labels.tolist()):.1f} %\n'
        f'   images with their five likeliest classes:   {sheet}\n'
        f'   loss and accuracy over training:            {curves}'
    )


def main() -> None:
    """Run the demo from data to figures."""
    args = parse_args(__doc__.partition(':')[0], MODELS)
    make_fashion(ROOT / DATA)
    work = WORK / args.model
    config = f'configs/demo_classifier_{args.model}_fashion.py'
    report(work, *train_and_test(config, work, args.keep, '--out', str(work / 'results.pkl')))


if __name__ == '__main__':
    main()
