"""Shared by the integration tests: a loopback server, upstream's file, and a picture."""

import functools
import http.server
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mmcv.transforms
import mmdet.datasets.transforms
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from PIL import Image

from mmevm.engine.tasks import build_model

from ..parity import Fixture

ROOT = Path(__file__).resolve().parents[2]
RUN = "raise SystemExit('text of a checkpoint was run')"
"""Python that ends the tests when it is run."""


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture(autouse=True)
def small_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make pipelines resize to small sizes, which change nothing of what is tested here but its time."""
    for kind in (mmcv.transforms.Resize, mmdet.datasets.transforms.Resize):

        def resize(self: Any, results: dict, transform: Callable = kind.transform) -> dict:
            self.scale = (128, 96)
            return transform(self, results)

        monkeypatch.setattr(kind, 'transform', resize)


@pytest.fixture(scope='session')
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """The address of a loopback server, and the folder whose files it serves."""
    folder = tmp_path_factory.mktemp('served')
    handler = functools.partial(_Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f'http://127.0.0.1:{server.server_port}', folder
        server.shutdown()


@pytest.fixture(scope='session')
def upstream_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classification checkpoint of EfficientVMamba-T as upstream writes them."""
    weights = Fixture('evm_tiny_64x64').state(outnorm=False)
    path = tmp_path_factory.mktemp('upstream') / 'efficient_vmamba_tiny.ckpt'
    torch.save({'state_dict': {f'module.module.{name}': value for name, value in weights.items()}}, path)
    return path


@pytest.fixture(scope='session')
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A picture of random pixels."""
    pixels = np.random.default_rng(0).integers(0, 256, (72, 96, 3), dtype=np.uint8)
    path = tmp_path_factory.mktemp('pictures') / 'noise.png'
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def zoo(upstream_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An offline zoo whose cache holds upstream's file of the tiny variant, put there by hand."""
    cache = tmp_path / 'cache' / 'zoo'
    cache.mkdir(parents=True)
    shutil.copy(upstream_file, cache)
    monkeypatch.setenv('MMEVM_CACHE', str(cache.parent))
    monkeypatch.setenv('MMEVM_OFFLINE', '1')
    return cache


def _checkpoint(config: str, dataset: type, folder: Path) -> Path:
    """The checkpoint that a training of one of our configs would leave, with random weights."""
    cfg = Config.fromfile(ROOT / 'configs' / f'{config}.py')
    # Fixtures of the session are made before the one that keeps a test's scope to itself.
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = build_model(cfg)
    if hasattr(model, 'roi_head'):  # else nothing may be found
        model.roi_head.bbox_head.fc_cls.bias.data[0] = 5
    path = folder / f'{config}.pth'
    # A training leaves the text of its config in both places; whoever runs this one fails.
    meta = {'dataset_meta': dict(dataset.METAINFO), 'cfg': RUN, 'config': RUN}
    hub = {'log_scalars': {}, 'runtime_info': {'cfg': RUN}, 'resumed_keys': {'cfg': True}}
    torch.save({'state_dict': model.state_dict(), 'meta': meta, 'message_hub': hub}, path)
    return path


@pytest.fixture(scope='session')
def detector(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of configs/mask_rcnn_evm_t_1x.py."""
    from mmdet.datasets import CocoDataset

    return _checkpoint('mask_rcnn_evm_t_1x', CocoDataset, tmp_path_factory.mktemp('detector'))


@pytest.fixture(scope='session')
def segmentor(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of configs/upernet_evm_t.py."""
    from mmseg.datasets import ADE20KDataset

    return _checkpoint('upernet_evm_t', ADE20KDataset, tmp_path_factory.mktemp('segmentor'))
