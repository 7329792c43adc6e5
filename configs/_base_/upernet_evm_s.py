# UperNet with EfficientVMamba-S.
_base_ = 'upernet_evm_t.py'

model = dict(
    backbone=dict(
        arch='small',
        init_cfg=dict(checkpoint='mmevm://efficient_vmamba_small'),
    ),
    decode_head=dict(in_channels=[64, 128, 256, 512], channels=384),
    auxiliary_head=dict(in_channels=256),
)
