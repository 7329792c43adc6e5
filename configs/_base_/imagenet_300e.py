# ImageNet-1k from random weights for 300 epochs, as upstream's training logs have it for EfficientVMamba-T and S.
_base_ = ['mmpretrain::_base_/datasets/imagenet_bs64_swin_224.py', 'mmpretrain::_base_/default_runtime.py']

# rand-m9-mstd0.5: timm's operations, whose magnitudes do not all grow with the level, as those of timm_increasing do.
# The logs also name a colour jitter of 0.3, which that trainer leaves out where RandAugment is on.
colour = dict(magnitude_range=(-0.9, 0.9), random_negative_prob=0.0)
train_pipeline = _base_.train_pipeline
train_pipeline[3].policies = [
    dict(type='AutoContrast'),
    dict(type='Equalize'),
    dict(type='Invert'),
    dict(type='Rotate', magnitude_range=(0, 30)),
    # 0 to 4 bits; timm rounds down where mmpretrain rounds up.
    dict(type='Posterize', magnitude_range=(-1, 3)),
    dict(type='Solarize', magnitude_range=(0, 256)),
    dict(type='SolarizeAdd', magnitude_range=(0, 110)),
    dict(type='ColorTransform', **colour),
    dict(type='Contrast', **colour),
    dict(type='Brightness', **colour),
    dict(type='Sharpness', **colour),
    dict(type='Shear', magnitude_range=(0, 0.3), direction='horizontal'),
    dict(type='Shear', magnitude_range=(0, 0.3), direction='vertical'),
    dict(type='Translate', magnitude_range=(0, 0.45), direction='horizontal'),
    dict(type='Translate', magnitude_range=(0, 0.45), direction='vertical'),
]

# 16 processes of 128 images.
train_dataloader = dict(batch_size=128, dataset=dict(pipeline=train_pipeline))
auto_scale_lr = dict(base_batch_size=2048)
optim_wrapper = dict(
    type='AmpOptimWrapper',
    optimizer=dict(type='AdamW', fused=True, lr=2e-3, weight_decay=0.04),
    clip_grad=dict(max_norm=1.0),
    # dt_projs_bias, which is no vector, decays, as it does by upstream's rule.
    paramwise_cfg=dict(
        norm_decay_mult=0.0,
        bias_decay_mult=0.0,
        custom_keys={
            'A_logs': dict(decay_mult=0.0),
            'Ds': dict(decay_mult=0.0),
        },
    ),
)
param_scheduler = [
    # From 1e-7 to 2e-3.
    dict(type='LinearLR', start_factor=5e-5, by_epoch=True, begin=0, end=20, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=1e-6, by_epoch=True, begin=20, end=300, convert_to_iter_based=True),
]
train_cfg = dict(by_epoch=True, max_epochs=300, val_interval=1)
val_cfg = dict()
test_cfg = dict()

custom_hooks = [dict(type='EMAHook', momentum=1e-4, priority='ABOVE_NORMAL')]
# The last checkpoints are enough of so many.
default_hooks = dict(checkpoint=dict(interval=1, max_keep_ckpts=3))
