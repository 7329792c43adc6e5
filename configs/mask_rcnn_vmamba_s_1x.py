# Mask R-CNN with VMamba-S (s2l15) on COCO 2017, 12 epochs: upstream's config, mmdet's Swin recipe.
_base_ = 'mask_rcnn_vmamba_t_1x.py'

model = dict(
    backbone=dict(
        arch='small_s2l15',
        drop_path_rate=0.3,
        init_cfg=dict(checkpoint='mmevm://vmamba_v2_small_s2l15'),
    ),
)
