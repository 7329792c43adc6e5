"""Find trees in airborne photographs: ``python tools/demo_trees.py [--keep]``.

Trains a small detector on tiles of two photographs, evaluates it on two others, whole, and draws what it finds. The
photographs are those of the Python package deepforest, whose wheel is downloaded. Everything runs through the project's
own tools, as for a dataset of your own: tools/tile_data.py, tools/train.py --data and tools/test.py --data. On a CPU
with two cores the training takes ten minutes.
"""

import runpy
import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for the package demo
try:
    from demo.baselines import box_grid_ap50
    from demo.figures import draw_curves, draw_found
    from demo.runs import ROOT, newest, parse_args, run_step, train_and_test
    from demo.trees import make_photographs
except ModuleNotFoundError as error:
    runpy.run_path(str(Path(__file__).with_name('_interpreter.py')))['stop'](error)

CONFIG = 'configs/demo_retinanet_evm_t_trees.py'
DATA = Path('data/demo/trees')
WORK = Path('work_dirs/demo_trees')
#: Overlaps as wide as most trees, so that most are whole in some tile.
TILES = ('--size', '400', '--overlap', '100', '--whole', 'val')


def make_data() -> Path:
    """Write the photographs and the tiles, and return the folder of the tiles."""
    photographs, tiles = DATA / 'photographs', DATA / 'tiles'
    if make_photographs(ROOT / photographs) or not (ROOT / tiles).exists():
        shutil.rmtree(ROOT / tiles, ignore_errors=True)
        run_step('Cutting the training photographs', 'tools/tile_data.py', str(photographs), str(tiles), *TILES)
    return tiles


def report(tiles: Path, took: str, metrics: dict[str, float]) -> None:
    """Draw photograph and curves; print average precision beside that of boxes at random."""
    train, val = (ROOT / tiles / f'annotations/{split}.json' for split in ('train', 'val'))
    results = ROOT / WORK / 'results.bbox.json'
    drawn = draw_found(val, results, ROOT / tiles, ROOT / WORK / 'predictions.jpg')
    curves = draw_curves(newest(WORK, '*/vis_data/scalars.json'), ROOT / WORK / 'curves.png', f'Trees: {took}')
    print(
        f'\n== Result on two photographs of other places: {took}\n'
        f'   AP50 {metrics["coco/bbox_mAP_50"]:.3f}; a grid of the mean box: {box_grid_ap50(train, val):.3f}\n'
        f'   the larger photograph with annotations and predictions:  {drawn}\n'
        f'   loss and AP over training:                               {curves}'
    )


def main() -> None:
    """Run the demo from data to figures."""
    args = parse_args(__doc__.partition(':')[0])
    tiles = make_data()
    options = ('--cfg-options', f'test_evaluator.outfile_prefix={WORK / "results"}')
    report(tiles, *train_and_test(CONFIG, WORK, args.keep, *options, data=tiles))


if __name__ == '__main__':
    main()
