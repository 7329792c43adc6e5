"""Samples of users' datasets as adapted configs load them."""

import json
from pathlib import Path

import numpy as np
import pytest
from mmengine.registry import DATASETS, DefaultScope
from PIL import Image

from mmevm.data.adaptation import require_task
from mmevm.data.classes import match_classes
from mmevm.data.reading import read_data
from mmevm.engine.checks.channels import check_channels
from mmevm.engine.config import load_config
from mmevm.engine.options import parts
from mmevm.errors import UsageError

from ..recipes import PATHS
from . import layouts
from .test_adaptation import BOTH, PHASES, adapted

pytestmark = pytest.mark.openmmlab


@pytest.mark.parametrize('every', [1, 3], ids=['all', 'some'])
@pytest.mark.parametrize('compressed', [True, False])
def test_masks_of_run_lengths_are_trained_on(every: int, compressed: bool, tmp_path: Path) -> None:
    from mmengine.registry import DATASETS, DefaultScope
    from pycocotools import mask as coco_mask

    root = layouts.write_coco(tmp_path / 'data', BOTH)
    path = root / 'annotations/instances_train.json'
    content = json.loads(path.read_text())
    width, height = layouts.SIZE
    for item in content['annotations'][::every]:
        item['segmentation'] = coco_mask.frPyObjects(item['segmentation'], height, width)[0]
        if compressed:
            item['segmentation']['counts'] = item['segmentation']['counts'].decode()
        else:
            flat = coco_mask.decode(item['segmentation']).T.ravel()
            edges = np.flatnonzero(np.diff(np.concatenate([[0], flat]))).tolist()
            item['segmentation']['counts'] = np.diff([0, *edges, flat.size]).tolist()
    layouts.write_json(path, content)
    cfg = adapted(load_config(PATHS['rtmdet_ins_evm_t']), read_data(root), tmp_path / 'out')
    loading = [step for _, step in parts(cfg.to_dict(), '') if step.get('with_mask')]
    pipelines = (cfg.train_dataloader.dataset, cfg.custom_hooks)
    changed = [step for _, step in parts(list(pipelines), '') if step.get('with_mask')]
    assert len(changed) == 2 and all(step['poly2mask'] for step in changed) and len(loading) >= 2
    with DefaultScope.overwrite_default_scope('mmdet'):
        pipeline = [*cfg.train_dataloader.dataset.pipeline[:2], dict(type='PackDetInputs')]
        dataset = DATASETS.build(dict(cfg.train_dataloader.dataset, pipeline=pipeline))
        samples = [dataset[index]['data_samples'] for index in range(len(dataset))]
    assert sum(len(sample.gt_instances) for sample in samples) == len(content['annotations'])
    assert not any(len(sample.ignored_instances) for sample in samples)
    for sample in samples:
        areas = sample.gt_instances.masks.masks.sum(axis=(1, 2))
        boxes = sample.gt_instances.bboxes.tensor
        assert areas == pytest.approx(((boxes[:, 2:] - boxes[:, :2]).prod(dim=1)).numpy(), rel=0.2)


@pytest.mark.parametrize('name', ['evm', 'vim', 'vmamba'])
def test_images_in_memory_become_files(name: str, tmp_path: Path) -> None:
    cfg = load_config(PATHS[f'demo_classifier_{name}_fashion'])
    adapted(cfg, read_data(layouts.write_folders(tmp_path / 'data', BOTH)), tmp_path / 'out')
    check_channels(cfg, PHASES)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        for loader in cfg.train_dataloader, cfg.val_dataloader:
            assert DATASETS.build(loader.dataset)[0]['inputs'].shape[0] == 1
    for kind in 'CIFAR10', 'CIFAR100':
        cfg = load_config(PATHS['classifier_evm_t'])
        cfg.train_dataloader.dataset = dict(type=kind, pipeline=[dict(type='PackInputs')])
        with pytest.raises(UsageError, match=rf'train_dataloader.dataset in c.py are in memory \({kind}\)'):
            require_task(cfg, 'c.py')


@pytest.mark.parametrize('ignored', [0, 255])
def test_pixels_without_a_class_stay_without_in_the_classes_of_a_model(ignored: int, tmp_path: Path) -> None:
    root = layouts.write_masks(tmp_path / 'data', BOTH, values=(ignored, 1, 2))
    names = ['road', 'sky'] if ignored == 0 else ['background', 'road', 'sky']
    (root / 'classes.txt').write_text('\n'.join(names))
    data = read_data(root, trained='')
    match_classes(data, ['background', 'road', 'sky'])
    cfg = adapted(load_config(PATHS['fpn_evm_t']), data, tmp_path / 'out')
    pipeline = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), dict(type='PackSegInputs')]
    with DefaultScope.overwrite_default_scope('mmseg'):
        dataset = DATASETS.build(dict(cfg.test_dataloader.dataset, pipeline=pipeline))
        for index in range(len(dataset)):
            sample = dataset[index]['data_samples']
            (path,) = root.glob(f'masks/*/{Path(sample.img_path).stem}.png')
            stored, labels = np.asarray(Image.open(path)), sample.gt_sem_seg.data.numpy()[0]
            unlabelled = (stored == ignored) | (stored == 255)
            assert (labels[unlabelled] == 255).all()
            assert (labels[~unlabelled] == stored[~unlabelled]).all()
