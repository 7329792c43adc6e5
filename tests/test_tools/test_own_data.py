"""``--data PATH``: one iteration of each task on a user's dataset, its saved config, and the evaluation of both."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.logging import MessageHub
from PIL import Image

from mmevm.apis.evaluate import main as run_test
from mmevm.apis.own_data import use_data
from mmevm.apis.train import main as run_train
from mmevm.backbones import EfficientVMamba
from mmevm.checkpoint import load_file
from mmevm.engine.config import load_config
from mmevm.errors import UsageError

from ..test_data import layouts
from ..test_docs.shell import run_script
from .conftest import ROOT

pytestmark = pytest.mark.openmmlab

PHASES = ('train', 'val', 'test')
TRAIN = 'train_dataloader.dataset.pipeline'
SIZE = '(64,64)'
BOTH = {'train': 2, 'val': 1}
COMMON = [
    *(f'{phase}_dataloader.{key}' for phase in PHASES for key in ('num_workers=0', 'persistent_workers=False')),
    'train_dataloader.batch_size=2',
    'train_cfg.val_interval=1',
]
SCALES = [f'{phase}_dataloader.dataset.pipeline.1.scale={SIZE}' for phase in ('val', 'test')]
RANDOM = 'model.backbone.init_cfg=None'
OPTIONS = {
    'retinanet_evm_t': [f'{TRAIN}.2.scale={SIZE}', 'train_cfg.max_epochs=1', RANDOM, *SCALES],
    'mask_rcnn_evm_t_1x': [f'{TRAIN}.2.scale={SIZE}', 'train_cfg.max_epochs=1', RANDOM, *SCALES],
    'segformer_evm_t': [
        f'{TRAIN}.2.scale={SIZE}',
        f'{TRAIN}.3.crop_size={SIZE}',
        f'model.data_preprocessor.size={SIZE}',
        'train_cfg.max_iters=1',
        RANDOM,
        *SCALES,
    ],
    'classifier_evm_t': [
        f'{TRAIN}.1.scale=64',
        'train_cfg.max_epochs=1',
        *(
            f'{phase}_dataloader.dataset.pipeline.{key}=64'
            for phase in ('val', 'test')
            for key in ('1.scale', '2.crop_size')
        ),
    ],
}


def write(name: str, root: Path) -> Path:
    """A dataset for a config, each in another layout."""
    if name == 'retinanet_evm_t':
        return layouts.write_voc(root, BOTH)
    if name == 'mask_rcnn_evm_t_1x':
        return layouts.write_yolo(root, BOTH, polygons=True)
    if name == 'segformer_evm_t':
        return layouts.write_masks(root, BOTH, values=(0, 255), ending='_mask')
    return layouts.write_folders(root, {'train': 1, 'val': 1})


@pytest.mark.parametrize('name', OPTIONS)
def test_a_task_trains_and_is_evaluated_on_a_users_data(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    root = write(name, tmp_path / 'my data')
    before = sorted((path, os.stat(path).st_mtime_ns) for path in root.rglob('*'))
    config, options = str(ROOT / f'configs/{name}.py'), ['--cfg-options', *COMMON, *OPTIONS[name]]
    assert run_train([config, '--data', 'my data', '--work-dir', 'work', *options]) == 0
    loss = MessageHub.get_current_instance().get_scalar('train/loss').current()
    assert np.isfinite(loss) and loss > 0
    checkpoint = str(next(Path('work').glob('*_1.pth')))
    classes = load_file(checkpoint)['meta']['dataset_meta']['classes']
    assert tuple(classes) == (('0', '255') if name.startswith('seg') else layouts.CLASSES)
    with Image.open('work/contact_sheet.jpg') as image:
        assert np.asarray(image).std() > 20
    saved = Config.fromfile('work/config.py')
    assert str(root) in str(saved.train_dataloader) and 'ImageNet' not in str(saved.train_dataloader)
    assert run_test(['work/config.py', checkpoint, '--work-dir', 'test']) == 0
    assert run_test([config, checkpoint, '--data', 'my data', '--work-dir', 'other', *options]) == 0
    results = [json.loads(next(Path(folder).glob('2*/*.json')).read_text()) for folder in ('test', 'other')]
    timing = ('data_time', 'time')
    assert {k: v for k, v in results[0].items() if k not in timing} == {
        k: v for k, v in results[1].items() if k not in timing
    }
    assert sorted((path, os.stat(path).st_mtime_ns) for path in root.rglob('*')) == before


def test_faults_stop_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    root = layouts.write_yolo(tmp_path / 'data', BOTH)
    (root / 'labels/train/0000.txt').write_text('5 .5 .5 .2 .2')
    (root / 'images/val/0002.jpg').write_bytes(b'')
    config = str(ROOT / 'configs/retinanet_evm_t.py')
    assert run_train([config, '--data', str(root), '--work-dir', 'work']) == 2
    err = capsys.readouterr().err
    assert '0000.txt, line 1: 5' in err and '0002.jpg: it is empty' in err
    assert f'The whole list: python tools/check_data.py {root}' in err
    assert not Path('work').exists()
    assert run_train([str(ROOT / 'configs/classifier_evm_t.py'), '--data', str(root)]) == 2
    assert 'is a config for image classification' in capsys.readouterr().err


def test_a_dataset_without_faults_of_its_own_is_not_said_to_have_a_list_of_them(tmp_path: Path) -> None:
    root = layouts.write_yolo(tmp_path / 'data', BOTH)
    cfg = load_config(ROOT / 'configs/mask_rcnn_evm_t_1x.py', work_dir=str(tmp_path / 'work'))
    with pytest.raises(UsageError, match='needs polygons') as raised:
        use_data(cfg, str(root), 'config.py')
    assert 'The whole list' not in str(raised.value)


def test_what_a_config_cannot_use_is_left_out_on_demand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    root = layouts.write_yolo(tmp_path / 'data', {'train': 3, 'val': 1}, polygons=True)
    label = root / 'labels/train/0001.txt'
    label.write_text(
        '\n'.join(layouts.yolo_line(box, polygons=index > 0) for index, box in enumerate(layouts.boxes(1)))
    )
    (root / 'images/train/0002.jpg').write_bytes(b'')
    cfg = load_config(ROOT / 'configs/mask_rcnn_evm_t_1x.py', work_dir='work')
    with pytest.raises(
        UsageError, match=r'(?s)0002.jpg: it is empty.*without polygons.*0001.txt, line 1.*--skip-broken'
    ):
        use_data(cfg, 'data', 'config.py')
    use_data(cfg, 'data', 'config.py', skip_broken=True)
    content = json.loads(Path(cfg.train_dataloader.dataset.ann_file).read_text())
    assert [Path(image['file_name']).name for image in content['images']] == ['0000.jpg', '0001.jpg']
    assert len(content['annotations']) == 3 and all(item['segmentation'] for item in content['annotations'])


def test_the_script_checks_a_dataset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    root = layouts.write_folders(tmp_path / 'data', {'': 2})
    assert run_script('tools/check_data.py', [str(root), '--out', 'sheet.jpg']) == 0
    assert 'No problems found' in capsys.readouterr().out
    assert (tmp_path / 'sheet.jpg').is_file()


FOUR_BANDS = """
_base_ = {base!r}
load = dict(type='LoadImageFromFile', color_type='unchanged', imdecode_backend='tifffile')
model = dict(
    data_preprocessor=dict(mean=[60.0], std=[50.0], bgr_to_rgb=False, size=(64, 64)),
    backbone=dict(in_channels=4, init_cfg=dict(type='Pretrained', checkpoint='rgb.pth')),
)
train_pipeline = [load, dict(type='LoadAnnotations'), dict(type='RandomFlip', prob=0.5), dict(type='PackSegInputs')]
test_pipeline = [load, dict(type='LoadAnnotations'), dict(type='PackSegInputs')]
loader = dict(num_workers=0, persistent_workers=False)
train_dataloader = dict(batch_size=2, dataset=dict(pipeline=train_pipeline), **loader)
val_dataloader = dict(dataset=dict(pipeline=test_pipeline), **loader)
test_dataloader = val_dataloader
train_cfg = dict(max_iters=1, val_interval=1)
"""


def test_images_of_four_bands_start_from_weights_for_rgb(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    root = layouts.write_masks(tmp_path / 'data', BOTH)
    for path in list((root / 'images').rglob('*.jpg')):
        layouts.paint(path.with_suffix('.tif'), int(path.stem), bands=4)
        path.unlink()
    state = EfficientVMamba('tiny', out_indices=(0, 1, 2, 3)).state_dict()
    torch.save({'state_dict': state}, 'rgb.pth')
    Path('four.py').write_text(FOUR_BANDS.format(base=str(ROOT / 'configs/fpn_evm_t.py')))
    seen = []
    forward = EfficientVMamba.forward
    monkeypatch.setattr(EfficientVMamba, 'forward', lambda self, x: seen.append(x.shape) or forward(self, x))
    assert run_train(['four.py', '--data', 'data', '--work-dir', 'work']) == 0
    assert [shape[1] for shape in seen] == [4, 4]
    out = ''.join(capsys.readouterr())
    assert 'from 3 to 4 input channels: R, G, B in turn, divided by their repetitions' in out
    assert Path('work/contact_sheet.jpg').is_file()


@pytest.mark.parametrize(
    'launcher, rank, count',
    [
        ('pytorch', 'RANK', 'WORLD_SIZE'),
        ('slurm', 'SLURM_PROCID', 'SLURM_NTASKS'),
        ('mpi', 'OMPI_COMM_WORLD_RANK', 'OMPI_COMM_WORLD_SIZE'),
    ],
)
def test_of_many_processes_the_first_draws_and_a_batch_is_that_of_all(
    launcher: str, rank: str, count: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = layouts.write_coco(tmp_path / 'data', {'train': 6, 'val': 1})
    monkeypatch.setenv(count, '8')
    for number in ('1', '0'):
        monkeypatch.setenv(rank, number)
        cfg = load_config(str(ROOT / 'configs/retinanet_evm_t.py'), launcher=launcher, work_dir=str(tmp_path / 'run'))
        cfg.train_dataloader.update(batch_size=1, drop_last=True)
        with pytest.raises(UsageError, match='has 6 images, fewer than a batch of 8'):
            use_data(cfg, str(root), 'retinanet_evm_t.py')
        cfg.train_dataloader.drop_last = False
        use_data(cfg, str(root), 'retinanet_evm_t.py')
        assert (tmp_path / 'run/contact_sheet.jpg').exists() == (number == '0')
