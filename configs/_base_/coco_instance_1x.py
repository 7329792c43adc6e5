# COCO 2017 instance segmentation, 12 epochs: mmdet's Swin recipe, which the paper follows, with AMP as upstream has it.
# The milestones 8 and 11 are that recipe's; the paper's text says 9 and 11, and a learning rate of 1e-5.
_base_ = ['mmdet::_base_/datasets/coco_instance.py', 'mmdet::_base_/schedules/schedule_1x.py']

train_dataloader = dict(batch_size=2)
auto_scale_lr = dict(base_batch_size=16)
optim_wrapper = dict(
    type='AmpOptimWrapper',
    optimizer=dict(_delete_=True, type='AdamW', fused=True, lr=1e-4, betas=(0.9, 0.999), weight_decay=0.05),
    paramwise_cfg=dict(
        norm_decay_mult=0.0,
        custom_keys={
            'A_logs': dict(decay_mult=0.0),
            'Ds': dict(decay_mult=0.0),
        },
    ),
)

param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=1000),
    dict(type='MultiStepLR', begin=0, end=12, by_epoch=True, milestones=[8, 11], gamma=0.1),
]
