# UperNet with VMamba-S (s2l15) on ADE20K at 512 x 512, 160k iterations: upstream's config, mmseg's Swin recipe.
_base_ = 'upernet_vmamba_t.py'

model = dict(
    backbone=dict(
        arch='small_s2l15',
        drop_path_rate=0.3,
        init_cfg=dict(checkpoint='mmevm://vmamba_v2_small_s2l15'),
    ),
)
