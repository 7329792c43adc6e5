# configs/mask_rcnn_evm_t_1x.py on miniature COCO: from random weights, with other images, schedule and RoI counts.
_base_ = 'mask_rcnn_evm_t_1x.py'

# The images hold one to four objects.
proposals = dict(nms_pre=400, max_per_img=200)
model = dict(
    backbone=dict(init_cfg=None, drop_path_rate=0.0),
    train_cfg=dict(rpn_proposal=proposals, rcnn=dict(sampler=dict(num=32))),
    test_cfg=dict(rpn=dict(nms_pre=400, max_per_img=100)),
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

max_epochs = 3
train_cfg = dict(max_epochs=max_epochs, val_interval=1)
auto_scale_lr = dict(base_batch_size=4)
# In float32, for the CPU. As in the detection demo, the heads without norms learn slower than the backbone.
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(lr=1e-3),
    clip_grad=dict(max_norm=1.0),
    paramwise_cfg=dict(
        custom_keys={
            'neck': dict(lr_mult=0.2),
            'rpn_head': dict(lr_mult=0.2),
            'roi_head': dict(lr_mult=0.2),
        }
    ),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=60),
    dict(type='CosineAnnealingLR', by_epoch=True, begin=0, end=max_epochs, convert_to_iter_based=True, eta_min=1e-5),
]
default_hooks = dict(logger=dict(interval=10), checkpoint=dict(interval=max_epochs))
