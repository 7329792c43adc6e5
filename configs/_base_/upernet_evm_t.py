# UperNet with EfficientVMamba-T; the decoder's width gives the parameters of the paper's Table 4.
_base_ = 'upernet.py'

model = dict(
    backbone=dict(
        type='mmevm.EfficientVMamba',
        arch='tiny',
        out_indices=(0, 1, 2, 3),
        # Swin's, which VMamba's configs inherit; the paper follows those and names no rate of its own.
        drop_path_rate=0.3,
        # Upstream's ImageNet checkpoint, from the zoo. From random weights:
        # --cfg-options model.backbone.init_cfg=None
        init_cfg=dict(type='Pretrained', checkpoint='mmevm://efficient_vmamba_tiny'),
    ),
    decode_head=dict(in_channels=[48, 96, 192, 384], channels=256),
    auxiliary_head=dict(in_channels=192),
)
