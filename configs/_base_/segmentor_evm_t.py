# What light segmentors with EfficientVMamba-T at 512 x 512 share; the head is missing.
_base_ = 'segmentor.py'

model = dict(
    data_preprocessor=dict(size=(512, 512)),
    backbone=dict(
        type='mmevm.EfficientVMamba',
        arch='tiny',
        out_indices=(0, 1, 2, 3),
        drop_path_rate=0.1,
        # Upstream's ImageNet checkpoint, from the zoo. From random weights:
        # --cfg-options model.backbone.init_cfg=None
        init_cfg=dict(type='Pretrained', checkpoint='mmevm://efficient_vmamba_tiny'),
    ),
)
