# configs/demo_retinanet_evm_t_mini.py on tiles of airborne photographs, for `make demo-trees`.
_base_ = 'demo_retinanet_evm_t_mini.py'

data_root = 'data/demo/trees/tiles/'
size = 256

# Hundreds of trees, of one class, which stand close together.
model = dict(
    bbox_head=dict(num_classes=1),
    test_cfg=dict(nms_pre=3000, nms=dict(iou_threshold=0.4), max_per_img=1000),
)

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='RandomResize', scale=(400, 400), ratio_range=(0.8, 1.3), keep_ratio=True),
    dict(type='RandomCrop', crop_size=(size, size), allow_negative_crop=True),
    # There is no up or down in a photograph from above.
    dict(type='RandomFlip', prob=[0.25, 0.25, 0.25], direction=['horizontal', 'vertical', 'diagonal']),
    dict(type='PhotoMetricDistortion'),
    dict(type='PackDetInputs'),
]
# Photographs are evaluated whole, at their own size.
test_pipeline = _base_.test_pipeline
test_pipeline[1] = dict(type='Resize', scale_factor=1.0, keep_ratio=True)

common = dict(data_root=data_root, data_prefix=dict(img=''), metainfo=dict(classes=('tree',)))
train_dataloader = dict(
    batch_size=2, dataset=dict(ann_file='annotations/train.json', pipeline=train_pipeline, **common)
)
val_dataloader = dict(batch_size=1, dataset=dict(ann_file='annotations/val.json', pipeline=test_pipeline, **common))
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=data_root + 'annotations/val.json', proposal_nums=(100, 300, 1000))
test_evaluator = val_evaluator

max_epochs = 48
train_cfg = dict(max_epochs=max_epochs, val_interval=12)
auto_scale_lr = dict(base_batch_size=2)
param_scheduler = _base_.param_scheduler
param_scheduler[1].update(end=max_epochs)
default_hooks = dict(logger=dict(interval=10), checkpoint=dict(interval=max_epochs))
