# configs/retinanet_evm_t.py on miniature COCO: from random weights, with another data root, image scale and schedule.
_base_ = 'retinanet_evm_t.py'

# A light neck and head, whose group norms let them learn from random weights almost as fast as the backbone.
norm_cfg = dict(type='GN', num_groups=32)
model = dict(
    backbone=dict(init_cfg=None, drop_path_rate=0.0),
    neck=dict(out_channels=128, norm_cfg=norm_cfg),
    bbox_head=dict(in_channels=128, feat_channels=128, stacked_convs=2, norm_cfg=norm_cfg),
)

data_root = 'data/mini/coco/'
scale = (128, 128)

train_pipeline = _base_.train_pipeline
train_pipeline[2].scale = scale
test_pipeline = _base_.test_pipeline
test_pipeline[1].scale = scale

train_dataloader = dict(batch_size=4, num_workers=1, dataset=dict(data_root=data_root, pipeline=train_pipeline))
val_dataloader = dict(batch_size=8, num_workers=1, dataset=dict(data_root=data_root, pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=data_root + 'annotations/instances_val2017.json')
test_evaluator = val_evaluator

max_epochs = 8
train_cfg = dict(max_epochs=max_epochs, val_interval=2)
auto_scale_lr = dict(base_batch_size=4)
optim_wrapper = dict(
    optimizer=dict(lr=1e-3),
    clip_grad=dict(max_norm=1.0),
    paramwise_cfg=dict(
        custom_keys={
            'neck': dict(lr_mult=0.5),
            'bbox_head': dict(lr_mult=0.5),
        }
    ),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=60),
    dict(type='CosineAnnealingLR', by_epoch=True, begin=0, end=max_epochs, convert_to_iter_based=True, eta_min=1e-5),
]
default_hooks = dict(logger=dict(interval=10), checkpoint=dict(interval=max_epochs))
