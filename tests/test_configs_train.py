"""One config per task trains an iteration and is evaluated on miniature data, through the tools' own entry points.

Changed are the data root, where the pretrained weights are, the images' size, the batch and the training's length.
Images are loaded in this process, because loaders' processes would outlive a training run that is not a program of its
own; tests/test_tools runs one that is, with them.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.logging import MessageHub

from demo.mini_data import make_mini_data
from mmevm.apis.evaluate import main as run_test
from mmevm.apis.train import main as run_train
from mmevm.backbones import EfficientVMamba, Vim
from mmevm.checkpoint import load_file
from mmevm.zoo import ENTRIES

from .parity import Fixture
from .recipes import PATHS
from .test_configs_pretrained import contents, upstream_file, upstream_state

pytestmark = pytest.mark.openmmlab

SIZE = '(64,64)'
PHASES = ('train', 'val', 'test')
TRAIN, VAL, TEST = (f'{phase}_dataloader.dataset.pipeline' for phase in PHASES)
DETECT = [
    'train_dataloader.batch_size=2',
    f'{TRAIN}.2.scale={SIZE}',
    f'{VAL}.1.scale={SIZE}',
    f'{TEST}.1.scale={SIZE}',
    'train_cfg.max_epochs=1',
]
# One iteration has found nothing of which a detector is sure.
CHANGES = {
    'retinanet_evm_t': ['data_root={}/coco', 'model.test_cfg.score_thr=0.', *DETECT],
    'mask_rcnn_evm_t_1x': ['data_root={}/coco', 'model.test_cfg.rcnn.score_thr=0.', *DETECT],
    'rtmdet_ins_evm_t': [
        'data_root={}/coco',
        'model.test_cfg.score_thr=0.',
        'train_dataloader.batch_size=2',
        f'{TRAIN}.2.img_scale={SIZE}',
        f'{TRAIN}.3.scale={SIZE}',
        f'{TRAIN}.4.crop_size={SIZE}',
        f'{TRAIN}.7.size={SIZE}',
        f'{TRAIN}.8.img_scale={SIZE}',
        *(f'{pipeline}.1.scale={SIZE}' for pipeline in (VAL, TEST)),
        *(f'{pipeline}.2.size={SIZE}' for pipeline in (VAL, TEST)),
        'train_cfg.max_epochs=1',
        'train_cfg.val_interval=1',
    ],
    'ssdlite_evm_t': [
        'data_root={}/coco',
        'model.test_cfg.score_thr=0.',
        'train_dataloader.batch_size=2',
        'train_dataloader.dataset.times=1',
        f'train_dataloader.dataset.dataset.pipeline.4.scale={SIZE}',
        *(f'{pipeline}.1.scale={SIZE}' for pipeline in (VAL, TEST)),
        'train_cfg.max_epochs=1',
        'train_cfg.val_interval=1',
    ],
    'upernet_vim_t': [
        'data_root={}/ade/ADEChallengeData2016',
        'train_dataloader.batch_size=2',
        f'{TRAIN}.2.scale={SIZE}',
        f'{TRAIN}.3.crop_size={SIZE}',
        f'model.data_preprocessor.size={SIZE}',
        f'{VAL}.1.scale={SIZE}',
        f'{TEST}.1.scale={SIZE}',
        'train_cfg.max_iters=1',
        'train_cfg.val_interval=1',
    ],
    'classifier_vim_t_stride8': [
        'data_root={}/imagenet',
        'train_dataloader.batch_size=2',
        f'{TRAIN}.1.scale=64',
        *(f'{pipeline}.1.scale=64' for pipeline in (VAL, TEST)),
        *(f'{pipeline}.2.crop_size=64' for pipeline in (VAL, TEST)),
        'train_cfg.max_epochs=1',
    ],
}
METRIC = {
    'retinanet': 'coco/bbox_mAP',
    'mask': 'coco/segm_mAP',
    'rtmdet': 'coco/segm_mAP',
    'ssdlite': 'coco/bbox_mAP',
    'upernet': 'mIoU',
    'classifier': 'accuracy/top1',
}


@pytest.fixture(scope='module')
def mini_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two training and two validation images of each dataset, in the real layouts."""
    out = tmp_path_factory.mktemp('mini')
    make_mini_data(out, image_size=64, train_images=2, val_images=2)
    return out


@pytest.fixture(scope='module')
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache with files like the released ones, with other numbers."""
    cache = tmp_path_factory.mktemp('cache')
    (cache / 'zoo').mkdir()
    upstream_file('tiny', cache / 'zoo')
    state = Fixture('vim_tiny_64x64').state(outnorm=False) | {'pos_embed': torch.zeros(1, 14 * 14 + 1, 192)}
    torch.save({'model': state}, cache / 'zoo' / ENTRIES['vim_tiny'].file)
    return cache


@pytest.fixture
def desk(mini_data: Path, zoo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, without a network."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('MMEVM_CACHE', str(zoo))
    monkeypatch.setenv('MMEVM_OFFLINE', '1')
    return mini_data


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The sizes of all batches that a backbone is given from here on."""
    shapes = []
    for kind in (EfficientVMamba, Vim):
        original = kind.forward

        def forward(self, x, original=original):
            shapes.append(tuple(x.shape))
            return original(self, x)

        monkeypatch.setattr(kind, 'forward', forward)
    return shapes


def options(name: str, data: Path) -> list[str]:
    """Return the changes to a config, for the tools' command line."""
    workers = [f'{phase}_dataloader.{key}' for phase in PHASES for key in ('num_workers=0', 'persistent_workers=False')]
    return ['--cfg-options', *(change.format(data) for change in CHANGES[name]), *workers]


def logged(key: str) -> float:
    """Return the last value of a scalar in the last training or evaluation."""
    return MessageHub.get_current_instance().get_scalar(key).current()


@pytest.mark.parametrize('name', CHANGES)
def test_config_trains_and_is_evaluated_on_miniature_data(
    name: str, desk: Path, seen: list[tuple[int, ...]], capsys: pytest.CaptureFixture
) -> None:
    command = [str(PATHS[name]), '--work-dir', 'work', *options(name, desk)]
    metric = METRIC[name.split('_')[0]]
    assert run_train(command) == 0
    assert np.isfinite(logged('train/loss')) and logged('train/loss') > 0
    # The training batch, then the two validation images.
    assert seen[0][0] == 2 and sum(shape[0] for shape in seen) == 4
    assert np.isfinite(logged(f'val/{metric}'))
    assert ('interpolated' in capsys.readouterr().out) == ('vim' in name)
    checkpoint = next(Path('work').glob('*_1.pth'))
    assert load_file(checkpoint)['meta']['iter'] == 1
    seen.clear()
    several = name.startswith('upernet')
    assert run_test([command[0], str(checkpoint), *(['--tta'] if several else []), *command[1:]]) == 0
    # Two images; a segmentor sees each at six scales, straight and flipped.
    assert (sum(shape[0] for shape in seen), len(set(seen))) == ((24, 6) if several else (2, 1))
    assert np.isfinite(logged(f'test/{metric}'))


def test_evaluating_upstreams_file_uses_all_of_its_weights(desk: Path, zoo: Path, monkeypatch) -> None:
    from mmpretrain.models import ImageClassifier

    evaluated = []
    predict = ImageClassifier.predict

    def watched(self, *args, **kwargs):
        evaluated.append(contents(self.state_dict()))
        return predict(self, *args, **kwargs)

    monkeypatch.setattr(ImageClassifier, 'predict', watched)
    command = options('classifier_vim_t_stride8', desk)
    assert run_test([str(PATHS['classifier_evm_t']), str(zoo / 'zoo/efficient_vmamba_tiny.ckpt'), *command]) == 0
    assert evaluated == [contents(upstream_state('tiny'))]


def test_evaluating_a_detector_refuses_the_weights_of_a_classifier(
    desk: Path, zoo: Path, capsys: pytest.CaptureFixture
) -> None:
    command = [str(PATHS['retinanet_evm_t']), str(zoo / 'zoo/efficient_vmamba_tiny.ckpt')]
    assert run_test([*command, *options('retinanet_evm_t', desk)]) == 2
    error = capsys.readouterr().err
    assert all(part in error for part in ('efficient_vmamba_tiny.ckpt', 'backbone, neck, bbox_head'))
