# RetinaNet with EfficientVMamba-S on COCO 2017, 12 epochs: the paper's Table 3.
_base_ = 'retinanet_evm_t.py'

model = dict(
    backbone=dict(
        arch='small',
        init_cfg=dict(checkpoint='mmevm://efficient_vmamba_small'),
    ),
    neck=dict(in_channels=[64, 128, 256, 512]),
)
