# Mask R-CNN with EfficientVMamba-B.
_base_ = 'mask_rcnn_evm_s.py'

model = dict(
    backbone=dict(
        arch='base',
        init_cfg=dict(
            checkpoint='https://huggingface.co/TerryPei/EfficientVMamba-Base/resolve/main/efficient_vmamba_base.ckpt'
        ),
    ),
    neck=dict(in_channels=[96, 192, 384, 768]),
)
