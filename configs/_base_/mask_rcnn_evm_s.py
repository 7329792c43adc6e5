# Mask R-CNN with EfficientVMamba-S: mmdet's R-50 FPN model with another backbone.
_base_ = ['mmdet::_base_/models/mask-rcnn_r50_fpn.py', 'mmdet::_base_/default_runtime.py']
custom_imports = dict(imports=['mmevm'], allow_failed_imports=False)

model = dict(
    backbone=dict(
        _delete_=True,
        type='mmevm.EfficientVMamba',
        arch='small',
        out_indices=(0, 1, 2, 3),
        drop_path_rate=0.2,
        # Upstream's ImageNet checkpoint, from the zoo. From random weights:
        # --cfg-options model.backbone.init_cfg=None
        init_cfg=dict(type='Pretrained', checkpoint='mmevm://efficient_vmamba_small'),
    ),
    neck=dict(in_channels=[64, 128, 256, 512]),
)

default_hooks = dict(checkpoint=dict(max_keep_ckpts=3))
