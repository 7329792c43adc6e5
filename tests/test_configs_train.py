"""Every dense T config, and EfficientVMamba's classifier, trains an iteration and is evaluated on miniature data.

Changed are the data root, where the pretrained weights lie, the pictures' size, the batch and the training's length.
Pictures are loaded in this process, because loaders' processes would outlive a training that is not a program of its
own; tests/test_tools runs one that is, with them. VMamba's and Vim's classifiers are trained in tests of their own.
"""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.logging import MessageHub

from demo.mini_data import make_mini_data
from mmevm.apis.evaluate import main as run_test
from mmevm.apis.train import main as run_train
from mmevm.backbones import EfficientVMamba, Vim, VMamba
from mmevm.checkpoint import load_file

from .parity import Fixture
from .test_configs import BY_NAME
from .test_configs_pretrained import contents, upstream_file, upstream_state

pytestmark = pytest.mark.openmmlab

SIZE = '(64,64)'
DATA = {'retinanet': 'coco', 'mask': 'coco', 'upernet': 'ade/ADEChallengeData2016', 'classifier': 'imagenet'}
METRIC = {'retinanet': 'coco/bbox_mAP', 'mask': 'coco/segm_mAP', 'upernet': 'mIoU', 'classifier': 'accuracy/top1'}
# One iteration has found nothing of which a detector is sure.
UNSURE = {'retinanet': 'model.test_cfg.score_thr=0.', 'mask': 'model.test_cfg.rcnn.score_thr=0.'}

PHASES = ('train', 'val', 'test')
TRAIN, VAL, TEST = (f'{phase}_dataloader.dataset.pipeline' for phase in PHASES)
DETECT = [f'{VAL}.1.scale={SIZE}', f'{TEST}.1.scale={SIZE}', 'train_cfg.max_epochs=1']
SEGMENT = [
    f'{TRAIN}.2.scale={SIZE}',
    f'{TRAIN}.3.crop_size={SIZE}',
    f'model.data_preprocessor.size={SIZE}',
    f'{VAL}.1.scale={SIZE}',
    f'{TEST}.1.scale={SIZE}',
    'train_cfg.max_iters=1',
    'train_cfg.val_interval=1',
]
CHANGES = {
    'retinanet_evm_t': [f'{TRAIN}.2.scale={SIZE}', *DETECT],
    'mask_rcnn_evm_t_1x': [f'{TRAIN}.2.scale={SIZE}', *DETECT],
    'mask_rcnn_evm_t_3x': [
        *(f'{TRAIN}.3.transforms.{step}.scales=[{SIZE}]' for step in ('0.0', '1.0', '1.2')),
        f'{TRAIN}.3.transforms.1.1.crop_size=(40,48)',
        *DETECT,
    ],
    'mask_rcnn_vmamba_t_1x': [f'{TRAIN}.2.scale={SIZE}', *DETECT],
    'upernet_evm_t': SEGMENT,
    'upernet_evm_t_640': SEGMENT,
    'upernet_vmamba_t': SEGMENT,
    'upernet_vim_t': SEGMENT,
    'classifier_evm_t': [
        f'{TRAIN}.1.scale=64',
        f'{VAL}.1.scale=64',
        f'{VAL}.2.crop_size=64',
        f'{TEST}.1.scale=64',
        f'{TEST}.2.crop_size=64',
        'train_cfg.max_epochs=1',
    ],
}


@pytest.fixture(scope='module')
def mini_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two training and two validation pictures of each data set, in the real layouts."""
    out = tmp_path_factory.mktemp('mini')
    make_mini_data(out, image_size=96, train_images=2, val_images=2)
    return out


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The sizes of all batches that any backbone is given from here on."""
    shapes = []

    def watch(kind: type) -> None:
        original = kind.forward
        monkeypatch.setattr(kind, 'forward', lambda self, x: (shapes.append(tuple(x.shape)), original(self, x))[1])

    for kind in (EfficientVMamba, VMamba, Vim):
        watch(kind)
    return shapes


def pretrained(name: str, folder: Path) -> Path:
    """Upstream's file of the backbone's variant, with other numbers."""
    fixtures = {'vmamba': 'vmamba_tiny_s1l8_64x96', 'vim': 'vim_tiny_64x64'}
    found = [fixture for backbone, fixture in fixtures.items() if f'_{backbone}_' in name]
    if not found:
        return upstream_file('tiny', folder)
    path = folder / 'upstream.pth'
    torch.save({'model': Fixture(found[0]).state(outnorm=False)}, path)
    return path


def options(name: str, data: Path, folder: Path) -> list[str]:
    """The changes to a config, for the tools' command line."""
    kind = name.split('_')[0]
    changes = [f'data_root={data / DATA[kind]}', 'train_dataloader.batch_size=2', *CHANGES[name]]
    for phase in PHASES:
        changes += [f'{phase}_dataloader.num_workers=0', f'{phase}_dataloader.persistent_workers=False']
    if kind != 'classifier':
        changes.append(f'model.backbone.init_cfg.checkpoint={pretrained(name, folder)}')
    return ['--cfg-options', *changes, *([UNSURE[kind]] if kind in UNSURE else [])]


def logged(key: str) -> float:
    """The last value of a scalar in the last training or evaluation."""
    return MessageHub.get_current_instance().get_scalar(key).current()


@pytest.mark.parametrize('name', CHANGES)
def test_config_trains_and_is_evaluated_on_miniature_data(
    name: str, mini_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seen: list[tuple[int, ...]]
) -> None:
    monkeypatch.chdir(tmp_path)
    command = [str(BY_NAME[name]), '--work-dir', 'work', *options(name, mini_data, tmp_path)]
    metric = METRIC[name.split('_')[0]]
    assert run_train(command) == 0
    assert np.isfinite(logged('train/loss')) and logged('train/loss') > 0
    # The training batch, then the two validation pictures.
    assert seen[0][0] == 2 and sum(shape[0] for shape in seen) == 4
    assert np.isfinite(logged(f'val/{metric}'))
    checkpoint = next(Path('work').glob('*_1.pth'))
    assert load_file(checkpoint)['meta']['iter'] == 1
    seen.clear()
    several = name.startswith('upernet')
    assert run_test([command[0], str(checkpoint), *(['--tta'] if several else []), *command[1:]]) == 0
    # Two pictures; a segmentor sees each at six scales, straight and flipped.
    assert (sum(shape[0] for shape in seen), len(set(seen))) == ((24, 6) if several else (2, 1))
    assert np.isfinite(logged(f'test/{metric}'))


def test_evaluating_upstreams_file_uses_all_of_its_weights(
    mini_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mmpretrain.models import ImageClassifier

    monkeypatch.chdir(tmp_path)
    evaluated = []
    predict = ImageClassifier.predict
    monkeypatch.setattr(
        ImageClassifier,
        'predict',
        lambda self, *args, **kwargs: (evaluated.append(contents(self.state_dict())), predict(self, *args, **kwargs))[
            1
        ],
    )
    command = options('classifier_evm_t', mini_data, tmp_path)
    assert run_test([str(BY_NAME['classifier_evm_t']), str(upstream_file('tiny', tmp_path)), *command]) == 0
    assert evaluated == [contents(upstream_state('tiny'))]


def test_evaluating_a_detector_refuses_the_weights_of_a_classifier(
    mini_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    command = options('retinanet_evm_t', mini_data, tmp_path)
    assert run_test([str(BY_NAME['retinanet_evm_t']), str(upstream_file('tiny', tmp_path)), *command]) == 2
    assert re.search(r'lacks \d+ tensors of backbone, neck, bbox_head', capsys.readouterr().err)
