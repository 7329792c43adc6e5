# UperNet with EfficientVMamba-B.
_base_ = 'upernet_evm_t.py'

model = dict(
    backbone=dict(
        arch='base',
        init_cfg=dict(checkpoint='mmevm://efficient_vmamba_base'),
    ),
    decode_head=dict(in_channels=[96, 192, 384, 768], channels=512),
    auxiliary_head=dict(in_channels=384),
)
