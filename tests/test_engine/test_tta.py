"""`mmevm.engine.tta`: what is augmented, and which models are refused before they are built."""

from pathlib import Path
from typing import Any

import pytest
from mmengine.config import Config
from mmengine.hub import get_config

from mmevm.apis.evaluate import main
from mmevm.engine.tta import set_tta
from mmevm.errors import UsageError

from .conftest import ROOT, our_config

pytestmark = pytest.mark.openmmlab


@pytest.mark.parametrize(
    'address, part',
    [
        ('mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py', 'model.roi_head.mask_head'),
        ('mmdet::htc/htc_r50_fpn_1x_coco.py', 'model.roi_head.mask_head'),
        ('mmdet::solov2/solov2_r50_fpn_1x_coco.py', 'model.mask_head'),
        ('mmdet::condinst/condinst_r50_fpn_ms-poly-90k_coco_instance.py', 'model.mask_head'),
        ('mmdet::mask2former/mask2former_r50_8xb2-lsj-50e_coco.py', 'model.panoptic_head'),
        ('mmdet::panoptic_fpn/panoptic-fpn_r50_fpn_1x_coco.py', 'model.panoptic_fusion_head'),
        ('mmdet::rtmdet/rtmdet-ins_tiny_8xb32-300e_coco.py', 'model.bbox_head'),
    ],
)
def test_detectors_with_masks_are_refused(address: str, part: str) -> None:
    cfg = get_config(address)
    model = cfg.model.copy()
    with pytest.raises(UsageError, match=rf'merges boxes only, and this model predicts masks \({part}\)'):
        set_tta(cfg)
    assert cfg.model == model


def test_refused_masks_come_with_a_way_to_test_boxes_that_is_taken() -> None:
    cfg = our_config('mask_rcnn_evm_t_1x')
    with pytest.raises(UsageError) as error:
        set_tta(cfg)
    options = str(error.value).partition('--cfg-options ')[2].rstrip('.').split()
    assert options == ['model.roi_head.mask_head=None', 'test_evaluator.metric=bbox']
    cfg.merge_from_dict({'model.roi_head.mask_head': None, 'test_evaluator.metric': 'bbox'})
    set_tta(cfg)
    assert cfg.model.type == 'DetTTAModel'


def test_masks_are_refused_by_the_tool_before_anything_is_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    from mmevm.apis import evaluate as tool

    monkeypatch.chdir(tmp_path)
    for check in ('check_data', 'check_classes'):
        monkeypatch.setattr(tool, check, lambda *args: None)
    monkeypatch.setattr(tool, 'build_runner', None)
    (tmp_path / 'a.pth').write_bytes(b'')
    assert main([str(ROOT / 'configs/mask_rcnn_evm_t_1x.py'), 'a.pth', '--tta']) == 2
    assert 'this model predicts masks' in capsys.readouterr().err


@pytest.mark.parametrize(
    'name, model, last, keys',
    [
        ('retinanet_evm_t', 'DetTTAModel', 'PackDetInputs', ('flip', 'flip_direction')),
        ('classifier_evm_t', 'AverageClsScoreTTA', 'PackInputs', ()),
    ],
)
def test_default_is_the_image_and_its_mirror(name: str, model: str, last: str, keys: tuple[str, ...]) -> None:
    cfg = our_config(name)
    before = cfg.test_dataloader.dataset.pipeline
    set_tta(cfg)
    assert (cfg.model.type, cfg.model.module.backbone.type) == (model, 'mmevm.EfficientVMamba')
    *kept, augmented = cfg.test_dataloader.dataset.pipeline
    assert kept == before[:-1]
    flips, (pack,) = augmented.transforms
    # The annotations of the first view are those that the merged predictions are compared with.
    assert [flip.prob for flip in flips] == [0.0, 1.0]
    assert pack.type == last and tuple(pack.get('meta_keys', ()))[-2:] == keys


def test_every_data_set_keeps_its_own_pipeline() -> None:
    cfg = our_config('retinanet_evm_t')
    one = cfg.test_dataloader.dataset
    other = dict(one, pipeline=[one.pipeline[0], dict(type='Resize', scale=(64, 64)), one.pipeline[-1]])
    cfg.test_dataloader.dataset = dict(type='ConcatDataset', datasets=[one, other])
    set_tta(cfg)
    scales = [dataset.pipeline[1].scale for dataset in cfg.test_dataloader.dataset.datasets]
    assert scales == [(1333, 800), (64, 64)]
    assert all(dataset.pipeline[-1].type == 'TestTimeAug' for dataset in cfg.test_dataloader.dataset.datasets)


def test_segmentors_use_their_configs_augmentation() -> None:
    cfg = our_config('upernet_evm_t')
    set_tta(cfg)
    assert cfg.model.type == 'SegTTAModel'
    assert cfg.test_dataloader.dataset.pipeline == cfg.tta_pipeline


def changed(name: str, **changes: Any) -> Config:
    cfg = our_config(name)
    cfg.merge_from_dict(changes)
    return cfg


@pytest.mark.parametrize(
    'name, changes, message',
    [
        ('upernet_evm_t', {'tta_pipeline': None}, 'needs tta_model and tta_pipeline in a segmentation config'),
        ('upernet_evm_t', {'tta_model': None}, 'needs tta_model and tta_pipeline in a segmentation config'),
        ('upernet_evm_t', {'model.type': 'DepthEstimator'}, 'DepthEstimator predicts depth'),
        ('classifier_evm_t', {'model.head.type': 'MultiTaskHead'}, 'MultiTaskHead has no such head'),
        ('classifier_evm_t', {'model.type': 'ImageToImageRetriever', 'model.head': None}, 'Retriever has no such head'),
        ('retinanet_evm_t', {'default_scope': 'mmpose'}, "got default_scope = 'mmpose'"),
        (
            'retinanet_evm_t',
            {'test_dataloader.dataset.pipeline': [dict(type='LoadImageFromFile')]},
            'ends with PackDetInputs, got LoadImageFromFile. Give tta_pipeline',
        ),
        ('retinanet_evm_t', {'test_dataloader.dataset.pipeline': None}, 'ends with PackDetInputs, got none'),
    ],
)
def test_what_cannot_be_merged_is_refused(name: str, changes: dict[str, Any], message: str) -> None:
    cfg = changed(name, **changes)
    with pytest.raises(UsageError, match=message):
        set_tta(cfg)


def test_a_users_own_model_may_merge_masks() -> None:
    cfg = changed('mask_rcnn_evm_t_1x', tta_model=dict(type='MyMaskTTA'))
    set_tta(cfg)
    assert cfg.model.type == 'MyMaskTTA' and cfg.model.module.type == 'MaskRCNN'
