# Mask R-CNN with VMamba-T (s1l8): mmdet's R-50 FPN model with another backbone.
_base_ = ['mmdet::_base_/models/mask-rcnn_r50_fpn.py', 'mmdet::_base_/default_runtime.py']
custom_imports = dict(imports=['mmevm'], allow_failed_imports=False)

model = dict(
    backbone=dict(
        _delete_=True,
        type='mmevm.VMamba',
        arch='tiny_s1l8',
        out_indices=(0, 1, 2, 3),
        drop_path_rate=0.2,
        # Upstream's ImageNet checkpoint, converted on load. From random weights:
        # --cfg-options model.backbone.init_cfg=None
        init_cfg=dict(type='Pretrained', checkpoint='mmevm://vmamba_v2_tiny_s1l8'),
    ),
    neck=dict(in_channels=[96, 192, 384, 768]),
)

default_hooks = dict(checkpoint=dict(max_keep_ckpts=3))
