# RetinaNet with EfficientVMamba-B on COCO 2017, 12 epochs: the paper's Table 3.
_base_ = 'retinanet_evm_t.py'

model = dict(
    backbone=dict(
        arch='base',
        init_cfg=dict(checkpoint='mmevm://efficient_vmamba_base'),
    ),
    neck=dict(in_channels=[96, 192, 384, 768]),
)
