# UperNet with VMamba-B (s2l15) on ADE20K at 512 x 512, 160k iterations: upstream's config, mmseg's Swin recipe.
_base_ = 'upernet_vmamba_t.py'

model = dict(
    backbone=dict(
        arch='base_s2l15',
        drop_path_rate=0.6,
        init_cfg=dict(checkpoint='mmevm://vmamba_v2_base_s2l15'),
    ),
    decode_head=dict(in_channels=[128, 256, 512, 1024]),
    auxiliary_head=dict(in_channels=512),
)
