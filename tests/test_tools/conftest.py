"""Shared by the tools' tests: miniature COCO, a short training, and a folder for shorter ones."""

from pathlib import Path

import pytest

from demo.mini_data import make_mini_data
from mmevm.apis.train import main as run_train

from .toy_runs import Toy

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / 'configs/retinanet_evm_t.py'


@pytest.fixture(scope='session')
def mini_coco(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four training and two validation images in COCO's layout."""
    out = tmp_path_factory.mktemp('data')
    return make_mini_data(out, ['coco'], image_size=96, train_images=4, val_images=2)[0].data_root


@pytest.fixture(scope='session')
def small_run(mini_coco: Path) -> list[str]:
    """Changes with which the real config runs in seconds without a download."""
    return [
        f'data_root={mini_coco}',
        'model.backbone.init_cfg=None',
        *(f'{phase}_dataloader.num_workers=0' for phase in ('train', 'val', 'test')),
        'train_dataloader.batch_size=2',
        'train_cfg.max_epochs=1',
        'train_dataloader.dataset.pipeline.2.scale=(96,96)',
        *(f'{phase}_dataloader.dataset.pipeline.1.scale=(96,96)' for phase in ('val', 'test')),
    ]


@pytest.fixture(scope='session')
def trained(small_run: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Work folder of two iterations and one evaluation of configs/retinanet_evm_t.py."""
    work = tmp_path_factory.mktemp('work')
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(work)
        assert run_train([str(CONFIG), '--work-dir', str(work), '--cfg-options', *small_run]) == 0
    return work


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture) -> Toy:
    """A folder for training runs of milliseconds."""
    monkeypatch.chdir(tmp_path)
    return Toy(tmp_path, capfd)
