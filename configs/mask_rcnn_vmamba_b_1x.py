# Mask R-CNN with VMamba-B (s2l15) on COCO 2017, 12 epochs: upstream's config, mmdet's Swin recipe.
_base_ = 'mask_rcnn_vmamba_t_1x.py'

model = dict(
    backbone=dict(
        arch='base_s2l15',
        drop_path_rate=0.6,
        init_cfg=dict(checkpoint='mmevm://vmamba_v2_base_s2l15'),
    ),
    neck=dict(in_channels=[128, 256, 512, 1024]),
)
