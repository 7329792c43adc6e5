# Mask R-CNN with VMamba-T (s1l8) on COCO 2017, 12 epochs: upstream's config, mmdet's Swin recipe.
_base_ = ['_base_/mask_rcnn_vmamba_t.py', '_base_/coco_instance_1x.py']

# In float32, as that recipe is. Its rule spares whatever has norm in its name, so that A_logs and Ds decay.
optim_wrapper = dict(type='OptimWrapper', paramwise_cfg=dict(_delete_=True, custom_keys={'norm': dict(decay_mult=0.0)}))
