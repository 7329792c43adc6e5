# Mask R-CNN with VMamba-S (s2l15) on COCO 2017, 36 epochs at several scales: upstream's config, mmdet's Swin recipe.
_base_ = 'mask_rcnn_vmamba_t_3x.py'

# The stochastic depth is that of upstream's config, which has 0.3 for 12 epochs.
model = dict(backbone=dict(arch='small_s2l15', init_cfg=dict(checkpoint='mmevm://vmamba_v2_small_s2l15')))
