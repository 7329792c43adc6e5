"""``tools/test.py CONFIG model.onnx`` against the same command with the checkpoint."""

import functools
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mmengine.config import Config
from pycocotools.mask import area

from mmevm.apis.evaluate import main as run_test
from mmevm.deploy.export import main as run_export
from tests.test_data import layouts
from tests.test_deploy import toy

pytestmark = pytest.mark.openmmlab


def detector(root: Path) -> dict[str, Any]:
    layouts.write_coco(root, {'val': 3})
    config = toy.mask_rcnn()
    config['test_dataloader']['dataset'].update(
        ann_file='data/annotations/instances_val.json',
        data_prefix=dict(img='data/val'),
        metainfo=dict(classes=layouts.CLASSES),
        test_mode=True,
    )
    config['test_dataloader']['dataset']['pipeline'][1].update(scale=layouts.SIZE)  # none: OpenCV's differs by a level
    return config | dict(
        test_evaluator=dict(type='CocoMetric', metric=['bbox', 'segm'], ann_file='data/annotations/instances_val.json')
    )


def segmentor(root: Path) -> dict[str, Any]:
    layouts.write_masks(root, {'val': 3})
    config = toy.segmentor()
    dataset = config['test_dataloader']['dataset']
    dataset['pipeline'].insert(2, dict(type='LoadAnnotations'))
    dataset.update(
        data_prefix=dict(img_path='data/images/val', seg_map_path='data/masks/val'), img_suffix='.jpg', test_mode=True
    )
    return config | dict(test_evaluator=dict(type='IoUMetric'))


def classifier(root: Path) -> dict[str, Any]:
    layouts.write_folders(root, {'val': 2})
    config = toy.classifier()
    config['test_dataloader']['dataset'].update(data_prefix='data/val', classes=list(layouts.CLASSES))
    return config | dict(test_evaluator=dict(type='Accuracy', topk=(1,)))


TASKS = {'detection': detector, 'segmentation': segmentor, 'classification': classifier}


@pytest.fixture(scope='module')
def write(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Makes the folder of a task, with ``toy.py``, ``toy.pth``, ``model.onnx`` and ``data``, once."""

    @functools.cache
    def write(task: str) -> Path:
        folder = tmp_path_factory.mktemp(task)
        with pytest.MonkeyPatch.context() as monkeypatch:
            monkeypatch.chdir(folder)
            config = TASKS[task](Path('data'))
            config['test_dataloader'].update(num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False))
            toy.write(config | dict(test_cfg=dict(), work_dir='work'), folder)
            assert run_export(['toy.py', 'toy.pth', '--out', 'model.onnx', '--no-verify']) == 0
        return folder

    return write


def predictions(model: str, *flags: str) -> list[dict[str, Any]]:
    assert run_test(['toy.py', model, '--out', 'out.pkl', *flags]) == 0
    return pickle.loads(Path('out.pkl').read_bytes())


@pytest.mark.parametrize('task', TASKS)
def test_predictions_are_those_of_the_checkpoint(task: str, write: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(write(task))
    for found, expected in zip(*(predictions(model) for model in ('model.onnx', 'toy.pth')), strict=True):
        if task == 'classification':
            np.testing.assert_allclose(found['pred_score'], expected['pred_score'], atol=1e-3)
        elif task == 'segmentation':
            assert (found['pred_sem_seg']['data'] == expected['pred_sem_seg']['data']).float().mean() > 0.99
        else:
            found, expected = found['pred_instances'], expected['pred_instances']
            assert len(expected['scores']) > 3
            np.testing.assert_allclose(found['scores'], expected['scores'], atol=1e-3)
            np.testing.assert_allclose(found['bboxes'], expected['bboxes'], atol=0.1)
            sides = expected['bboxes'][:, 2:] - expected['bboxes'][:, :2]
            whole = np.flatnonzero(sides.min(dim=1).values > 1)  # mmdet draws a line of pixels for boxes of no area
            areas = [[area(objects['masks'][i]) for i in whole] for objects in (found, expected)]
            np.testing.assert_allclose(*areas, rtol=0.02, atol=3)


def test_what_does_not_fit(write: Callable, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.chdir(write('segmentation'))
    cfg = Config.fromfile('toy.py')
    cfg.test_dataloader.dataset.metainfo.classes.reverse()
    cfg.dump('reversed.py')
    cfg.default_scope = 'mmpretrain'
    cfg.dump('other.py')
    Path('broken.onnx').write_bytes(Path('model.onnx').read_bytes()[:500])
    for arguments, message in (
        (['reversed.py', 'model.onnx'], 'or have them in another order'),
        (['other.py', 'model.onnx'], 'is a model for segmentation, and the config is one of mmpretrain'),
        (['toy.py', 'broken.onnx'], 'it is damaged, or no ONNX file'),
        (['toy.py', 'none.onnx'], 'Checkpoint not found'),
        (['toy.py', 'model.onnx', '--tta'], 'exported models predict without augmentation'),
    ):
        assert run_test(arguments) == 2, (arguments, capsys.readouterr())
        assert message in capsys.readouterr().err


def test_a_users_data(write: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(write('classification'))
    layouts.write_folders(Path('other'), {'test': 3})
    assert len(predictions('model.onnx', '--data', 'other')) == 9
