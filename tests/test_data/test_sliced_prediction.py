"""Prediction in slices, as docs/own_data.md has it: sahi around a detector of mmevm."""

from pathlib import Path

import numpy as np
import pytest
import torch
from mmdet.apis import DetInferencer
from mmengine.config import Config
from PIL import Image
from sahi import AutoDetectionModel
from sahi.predict import get_sliced_prediction

from mmevm.engine.tasks import build_model

pytestmark = pytest.mark.openmmlab

ROOT = Path(__file__).resolve().parents[2]
SIDE, STEP = 96, 64
# Nothing is merged: what the slices found can be compared with what the model finds in them.
EVERYTHING = dict(postprocess_type='NMS', postprocess_match_metric='IOU', postprocess_match_threshold=1.0)


@pytest.fixture(autouse=True)
def pixel_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Restores Pillow's limit, which sahi removes for the whole process."""
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', Image.MAX_IMAGE_PIXELS)


@pytest.fixture(scope='module')
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The config and checkpoint of a small detector with random weights."""
    folder = tmp_path_factory.mktemp('detector')
    cfg = Config.fromfile(ROOT / 'configs/demo_retinanet_evm_t_trees.py')
    cfg.model.backbone.arch = dict(dims=[16, 32, 64, 128], depths=[1, 1, 1, 1])
    cfg.model.neck.in_channels = [16, 32, 64, 128]
    cfg.model.test_cfg.update(score_thr=0.0, max_per_img=20)
    cfg.dump(folder / 'config.py')
    torch.manual_seed(0)
    state = build_model(cfg).state_dict()
    torch.save(dict(state_dict=state, meta=dict(dataset_meta=dict(classes=('tree',)))), folder / 'last.pth')
    return dict(config_path=str(folder / 'config.py'), model_path=str(folder / 'last.pth'))


def test_slices_give_what_the_model_finds_in_them(trained: dict[str, str]) -> None:
    photograph = np.random.default_rng(0).integers(0, 255, (SIDE, SIDE + STEP, 3), dtype=np.uint8)
    model = AutoDetectionModel.from_pretrained('mmdet', confidence_threshold=0.0, device='cpu', **trained)
    overlap = dict(overlap_height_ratio=0.0, overlap_width_ratio=(SIDE - STEP) / SIDE)
    result = get_sliced_prediction(
        photograph, model, SIDE, SIDE, perform_standard_pred=False, verbose=0, **overlap, **EVERYTHING
    )
    found = sorted((p.score.value, *p.bbox.to_xyxy()) for p in result.object_prediction_list)

    inferencer = DetInferencer(trained['config_path'], trained['model_path'], device='cpu', show_progress=False)
    expected = []
    for left in (0, STEP):
        tile = np.ascontiguousarray(photograph[:, left : left + SIDE, ::-1])  # RGB -> BGR
        (prediction,) = inferencer(tile)['predictions']
        for score, (x0, y0, x1, y1) in zip(prediction['scores'], prediction['bboxes'], strict=True):
            # sahi leaves out boxes without an area.
            if x1 > x0 and y1 > y0:
                expected.append((score, x0 + left, y0, x1 + left, y1))
    assert len(expected) > 20
    np.testing.assert_allclose(found, sorted(expected), rtol=1e-4, atol=1e-2)
    assert {p.category.name for p in result.object_prediction_list} == {'tree'}
