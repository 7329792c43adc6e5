"""The demos: each config trains and is evaluated on a few images, and what it writes can be drawn and compared."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from demo import runs as demo
from demo.mini_data import make_mini_data
from mmevm.apis.evaluate import main as run_test
from mmevm.apis.tile_data import main as tile_data
from mmevm.apis.train import main as run_train

from ..runs import forget_runs
from .sources import write_fashion, write_wheel

pytestmark = pytest.mark.openmmlab

REPOSITORY = demo.ROOT
SHORT = {
    'trees': [
        'train_cfg.max_epochs=1',
        'train_cfg.val_interval=1',
        'model.test_cfg.score_thr=0.',
        'train_dataloader.dataset.pipeline.2.scale=(64,64)',
        'train_dataloader.dataset.pipeline.3.crop_size=(64,64)',
    ],
    'upernet': ['train_cfg.max_iters=1', 'train_cfg.val_interval=1'],
    # One iteration has found nothing of which a detector is sure.
    'mask': ['train_cfg.max_epochs=1', 'train_cfg.val_interval=1', 'model.test_cfg.rcnn.score_thr=0.'],
    'retinanet': ['train_cfg.max_epochs=1', 'train_cfg.val_interval=1', 'model.test_cfg.score_thr=0.'],
    'classifier': ['train_cfg.max_epochs=1', 'train_cfg.val_interval=1'],
}
PHASES = ('train', 'val', 'test')
IN_PROCESS = [
    f'{phase}_dataloader.{key}'
    for phase in PHASES
    for key in ('num_workers=0', 'persistent_workers=False', 'batch_size=2')
]


def load_tool(name: str) -> ModuleType:
    """A script of tools/ as a module."""
    spec = importlib.util.spec_from_file_location(name, REPOSITORY / f'tools/{name}.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def few_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Demos run in this process, in a folder of their own, on two images a split and for one epoch or iteration."""

    def run_step(title: str, *command: str) -> float:
        tool, *arguments = command
        if tool == 'tools/make_mini_data.py':
            subset = arguments[arguments.index('--only') + 1]
            make_mini_data(arguments[1], [subset], image_size=64, train_images=2, val_images=2)
            return 0.0
        if tool == 'tools/tile_data.py':
            assert tile_data(arguments) == 0
            return 0.0
        main = dict(train=run_train, test=run_test)[Path(tool).stem]
        if '--cfg-options' not in arguments:
            arguments.append('--cfg-options')
        changes = next(changes for kind, changes in SHORT.items() if kind in arguments[0])
        arguments[0] = str(REPOSITORY / arguments[0])
        forget_runs()
        assert main([*arguments, *IN_PROCESS, *changes]) == 0
        return 90.0

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(demo, 'ROOT', tmp_path)
    monkeypatch.setattr(demo, 'run_step', run_step)
    return tmp_path


def require_figures(work: Path) -> None:
    """The two figures that every demo writes show something."""
    for name in ('predictions.png', 'curves.png'):
        with Image.open(work / name) as image:
            assert len(np.unique(np.array(image.convert('RGB')).reshape(-1, 3), axis=0)) > 50


@pytest.mark.parametrize(
    'name, lines',
    [
        (
            'demo_seg',
            [r'on 2 unseen images: 1\.5 minutes', r'mean IoU [\d.]+ %; the most frequent class .*: [\d.]+ %'],
        ),
        ('demo', [r'unseen validation images: 1\.5 minutes', r'AP50 \(IoU 0\.50\) +[\d.]+']),
        ('demo_mask', [r'unseen images: 1\.5 minutes', r'mask AP50 -?[\d.]+, .* image: AP50 -?[\d.]+']),
    ],
)
def test_demo_trains_evaluates_draws_and_compares(
    name: str, lines: list[str], few_images: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr('sys.argv', [name])
    load_tool(name).main()
    printed = capsys.readouterr().out
    for line in lines:
        assert re.search(line, printed)
    require_figures(few_images / 'work_dirs' / name)


def test_classification_demo_trains_evaluates_draws_and_compares(few_images: Path) -> None:
    tool = load_tool('demo_cls')
    demo.run_step('', 'tools/make_mini_data.py', 'data/demo', 'data/demo', *tool.MINI)
    report = '\n'.join(tool.run('mini', 'title', keep=False))
    # Both splits hold the same two classes.
    assert re.search(r'top-1 [\d.]+ %, top-5 [\d.]+ %; the most frequent class alone: 50\.0 %', report)
    require_figures(few_images / 'work_dirs/demo_cls/mini')
    assert tool.class_names('mini')[879] == 'umbrella' and tool.class_names('digits')[3] == '3'


def test_tree_demo_trains_on_tiles_and_is_evaluated_on_other_photographs(
    few_images: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    folder = few_images / 'data/demo/trees'
    folder.mkdir(parents=True)
    write_wheel(folder, monkeypatch)
    monkeypatch.setattr('sys.argv', ['demo_trees'])
    load_tool('demo_trees').main()
    printed = capsys.readouterr().out
    assert re.search(r'other places: 1\.5 minutes of training\n +AP50 [\d.]+; a grid of the mean box: [\d.]+', printed)
    work = few_images / 'work_dirs/demo_trees'
    assert (work / 'predictions.jpg').stat().st_size and (work / 'curves.png').stat().st_size
    log = next((work / 'test').glob('*/*.log')).read_text()
    assert 'data/demo/trees/tiles/annotations/val.json' in log


@pytest.mark.parametrize('model', ['evm', 'vmamba', 'vim'])
def test_fashion_demo_trains_each_model(
    model: str, few_images: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    write_fashion(few_images / 'installed', monkeypatch)
    monkeypatch.setattr('sys.argv', ['demo_fashion', '--model', model])
    load_tool('demo_fashion').main()
    # The test split has four images, of the classes 0 to 3, and the training split eight, half of class 1.
    printed = capsys.readouterr().out
    assert re.search(r'on 4 test images: 1\.5 minutes of training\n +top-1 [\d.]+ %; .* alone: 25\.0 %', printed)
    require_figures(few_images / 'work_dirs/demo_fashion' / model)


def test_keep_without_a_training_says_so(few_images: Path) -> None:
    with pytest.raises(SystemExit, match='run the demo without --keep'):
        demo.train_and_test('config.py', Path('work_dirs/none'), True)


def test_a_failing_step_stops_the_demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, 'ROOT', tmp_path)
    (tmp_path / 'tools').mkdir()
    (tmp_path / 'tools/train.py').write_text("import sys\nsys.exit(2 * (sys.argv[1:] == ['no/such.py']))")
    with pytest.raises(SystemExit, match=r'tools/train\.py failed with status 2'):
        demo.run_step('title', 'tools/train.py', 'no/such.py')
