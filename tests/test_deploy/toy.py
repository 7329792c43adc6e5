"""Small models whose results differ from pixel to pixel, as configs and checkpoints."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.model import BaseModule
from mmengine.registry import MODELS
from torch import Tensor, nn

from mmevm.engine.tasks import build_model

PREPROCESSOR = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375])
BACKBONE = dict(type='mmevm.EfficientVMamba', arch=dict(dims=[16, 32], depths=[1, 1]), out_indices=(0,))


@MODELS.register_module()
class ToyPyramid(BaseModule):
    """Maps from one convolution each: exporting it takes little time.

    Args:
        channels (Sequence[int]): Of each map.
        strides (Sequence[int]): Pixels per cell of each map.
    """

    def __init__(
        self, channels: Sequence[int] = (16, 16, 16), strides: Sequence[int] = (8, 16, 32), init_cfg: Any = None
    ) -> None:
        super().__init__(init_cfg)
        self.steps = nn.ModuleList(
            nn.Conv2d(3, width, stride, stride=stride) for width, stride in zip(channels, strides, strict=True)
        )

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return tuple(step(images).tanh() for step in self.steps)


def _pipeline(*steps: dict, pack: str) -> list[dict]:
    return [dict(type='LoadImageFromFile'), *steps, dict(type=pack)]


def _config(scope: str, model: dict, dataset: dict) -> dict[str, Any]:
    return dict(
        default_scope=scope,
        custom_imports=dict(imports=['mmevm', 'tests.test_deploy.toy'], allow_failed_imports=False),
        model=model,
        test_dataloader=dict(batch_size=1, dataset=dataset),
    )


def classifier() -> dict[str, Any]:
    model = dict(
        type='ImageClassifier',
        backbone=BACKBONE,
        neck=dict(type='GlobalAveragePooling'),
        head=dict(type='LinearClsHead', num_classes=3, in_channels=16),
        data_preprocessor=dict(PREPROCESSOR, to_rgb=True, num_classes=3),
    )
    edge = dict(type='ResizeEdge', scale=72, edge='short', backend='pillow', interpolation='bicubic')
    crop = dict(type='CenterCrop', crop_size=64)
    pipeline = _pipeline(edge, crop, pack='PackInputs')
    return _config('mmpretrain', model, dict(type='CustomDataset', classes=['cat', 'dog', 'eel'], pipeline=pipeline))


def _detector(**parts: Any) -> dict[str, Any]:
    preprocessor = dict(type='DetDataPreprocessor', **PREPROCESSOR, bgr_to_rgb=True, pad_size_divisor=32)
    model = dict(
        data_preprocessor=preprocessor,
        backbone=dict(type='ToyPyramid'),
        neck=dict(type='FPN', in_channels=[16] * 3, out_channels=16, num_outs=3),
        **parts,
    )
    pipeline = _pipeline(dict(type='Resize', scale=(150, 95), keep_ratio=True), pack='PackDetInputs')
    names = dict(classes=['cat', 'dog', 'eel'])
    return _config('mmdet', model, dict(type='CocoDataset', metainfo=names, pipeline=pipeline))


ANCHORS = dict(type='AnchorGenerator', ratios=[0.5, 1.0, 2.0], scales=[3], strides=[8, 16, 32])
CODER = dict(type='DeltaXYWHBBoxCoder', target_stds=[0.3, 0.3, 0.3, 0.3])
NMS = dict(type='nms', iou_threshold=0.5)


def dense(kind: str, **options: Any) -> dict[str, Any]:
    head = dict(type=kind, num_classes=3, in_channels=16, feat_channels=16, stacked_convs=1, **options)
    test_cfg = dict(nms_pre=60, min_bbox_size=0, score_thr=0.3, nms=NMS, max_per_img=20)
    return _detector(type='SingleStageDetector', bbox_head=head, test_cfg=test_cfg)


def retinanet() -> dict[str, Any]:
    config = dense('RetinaHead', anchor_generator=ANCHORS, bbox_coder=CODER)
    config['model']['type'] = 'RetinaNet'
    return config


def mask_rcnn() -> dict[str, Any]:
    extractor = dict(type='SingleRoIExtractor', out_channels=16, featmap_strides=[8, 16, 32], finest_scale=24)
    layer = dict(type='RoIAlign', output_size=7, sampling_ratio=0)
    box = dict(
        type='Shared2FCBBoxHead', in_channels=16, fc_out_channels=32, roi_feat_size=7, num_classes=3, bbox_coder=CODER
    )
    mask = dict(type='FCNMaskHead', num_convs=1, in_channels=16, conv_out_channels=16, num_classes=3)
    return _detector(
        type='MaskRCNN',
        rpn_head=dict(type='RPNHead', in_channels=16, feat_channels=16, anchor_generator=ANCHORS, bbox_coder=CODER),
        roi_head=dict(
            type='StandardRoIHead',
            bbox_roi_extractor=dict(extractor, roi_layer=layer),
            bbox_head=box,
            mask_roi_extractor=dict(extractor, roi_layer=dict(layer, output_size=14)),
            mask_head=mask,
        ),
        train_cfg=None,
        test_cfg=dict(
            rpn=dict(nms_pre=100, max_per_img=40, nms=dict(type='nms', iou_threshold=0.7), min_bbox_size=0),
            rcnn=dict(score_thr=0.3, nms=NMS, max_per_img=10, mask_thr_binary=0.5),
        ),
    )


def segmentor() -> dict[str, Any]:
    model = dict(
        type='EncoderDecoder',
        data_preprocessor=dict(
            type='SegDataPreProcessor', **PREPROCESSOR, bgr_to_rgb=True, test_cfg=dict(size=(100, 160))
        ),
        backbone=dict(type='ToyPyramid'),
        decode_head=dict(
            type='UPerHead',
            in_channels=[16] * 3,
            in_index=[0, 1, 2],
            pool_scales=(1, 2, 3),
            channels=8,
            num_classes=4,
            norm_cfg=dict(type='SyncBN'),
            align_corners=False,
        ),
        test_cfg=dict(mode='whole'),
    )
    pipeline = _pipeline(dict(type='Resize', scale=(150, 95), keep_ratio=True), pack='PackSegInputs')
    names = dict(classes=['sky', 'sea', 'tree', 'car'])
    return _config('mmseg', model, dict(type='BaseSegDataset', metainfo=names, pipeline=pipeline))


def spread(model: Any) -> Any:
    """Give a model weights under which scores are far from each other, and return it in evaluation mode."""
    torch.manual_seed(1)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if parameter.dim() > 1 and 'head' in key:
                nn.init.kaiming_normal_(parameter)
            elif key.endswith('bias') and 'backbone' not in key:
                parameter.uniform_(-0.5, 0.5)
    return model.eval()


def write(config: dict[str, Any] | Config, folder: Path, name: str = 'toy') -> tuple[Path, Path]:
    """Write a config, and a checkpoint with weights under which scores are far from each other.

    Args:
        config (dict or Config): As made above.
        folder (Path): For both files.
        name (str): Of the files.

    Returns:
        tuple[Path, Path]: The config and the checkpoint.
    """
    path = folder / f'{name}.py'
    config = config if isinstance(config, Config) else Config(config)
    config.dump(path)
    model = spread(build_model(config))
    torch.save({'state_dict': model.state_dict(), 'meta': {}}, folder / f'{name}.pth')
    return path, folder / f'{name}.pth'
