# Vim-T on ImageNet-1k, trained from random weights, as upstream's script trains it. Total batch 1024.
_base_ = [
    'mmpretrain::_base_/datasets/imagenet_bs64_swin_224.py',
    'mmpretrain::_base_/schedules/imagenet_bs1024_adamw_swin.py',
    'mmpretrain::_base_/default_runtime.py',
]
custom_imports = dict(imports=['mmevm'], allow_failed_imports=False)

model = dict(
    type='ImageClassifier',
    backbone=dict(type='mmevm.Vim', arch='tiny', out_indices=(23,), out_type='cls_token', drop_path_rate=0.0),
    head=dict(
        type='LinearClsHead',
        num_classes=1000,
        in_channels=192,
        init_cfg=dict(type='TruncNormal', layer='Linear', std=0.02, bias=0.0),
        loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1, mode='original'),
        topk=(1, 5),
        cal_acc=False,
    ),
    train_cfg=dict(augments=[dict(type='Mixup', alpha=0.8), dict(type='CutMix', alpha=1.0)]),
)

# 8 processes of 128 images; every image comes three times, differently augmented.
train_dataloader = dict(batch_size=128, sampler=dict(type='RepeatAugSampler', num_repeats=3))
optim_wrapper = dict(
    optimizer=dict(fused=True, lr=1e-3, weight_decay=0.1),
    # A_log, which is no vector, decays, as it does by upstream's rule.
    paramwise_cfg=dict(
        _delete_=True,
        flat_decay_mult=0.0,
        custom_keys={
            '.cls_token': dict(decay_mult=0.0),
            '.pos_embed': dict(decay_mult=0.0),
        },
    ),
)
param_scheduler = [
    # From 1e-6 to 1e-3.
    dict(type='LinearLR', start_factor=1e-3, by_epoch=True, begin=0, end=5, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=1e-5, by_epoch=True, begin=5, end=300, convert_to_iter_based=True),
]
custom_hooks = [dict(type='EMAHook', momentum=4e-5, priority='ABOVE_NORMAL')]
# The last checkpoints are enough of so many.
default_hooks = dict(checkpoint=dict(interval=1, max_keep_ckpts=3))
