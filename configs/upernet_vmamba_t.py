# UperNet with VMamba-T (s1l8) on ADE20K at 512 x 512, 160k iterations: upstream's config, mmseg's Swin recipe.
_base_ = ['_base_/upernet.py', '_base_/ade20k.py', '_base_/ade20k_160k.py']

model = dict(
    data_preprocessor=dict(size=(512, 512)),
    backbone=dict(
        type='mmevm.VMamba',
        arch='tiny_s1l8',
        out_indices=(0, 1, 2, 3),
        drop_path_rate=0.2,
        # Upstream's ImageNet checkpoint, converted on load. From random weights:
        # --cfg-options model.backbone.init_cfg=None
        init_cfg=dict(type='Pretrained', checkpoint='mmevm://vmamba_v2_tiny_s1l8'),
    ),
    decode_head=dict(in_channels=[96, 192, 384, 768]),
    auxiliary_head=dict(in_channels=384),
)

# That recipe's rule spares whatever has norm in its name, so that A_logs, Ds and the heads' batch norms decay.
optim_wrapper = dict(paramwise_cfg=dict(_delete_=True, custom_keys={'norm': dict(decay_mult=0.0)}))
