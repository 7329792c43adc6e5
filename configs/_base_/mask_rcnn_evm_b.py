# Mask R-CNN with EfficientVMamba-B.
_base_ = 'mask_rcnn_evm_s.py'

model = dict(
    backbone=dict(
        arch='base',
        init_cfg=dict(checkpoint='mmevm://efficient_vmamba_base'),
    ),
    neck=dict(in_channels=[96, 192, 384, 768]),
)
