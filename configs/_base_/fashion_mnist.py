# Fashion-MNIST from random weights: what the small models of demo_classifier_*_fashion.py share.
_base_ = 'mmpretrain::_base_/default_runtime.py'
custom_imports = dict(imports=['mmevm'], allow_failed_imports=False)

data_root = 'data/demo/fashion-mnist'
# Images of 28 x 28 pixels, enlarged so that patches of 4 x 4 pixels have 2 x 2 of their own.
size = 56

data_preprocessor = dict(num_classes=10, mean=[72.94], std=[90.02], to_rgb=False)
model = dict(
    type='ImageClassifier',
    head=dict(
        type='LinearClsHead',
        num_classes=10,
        init_cfg=dict(type='TruncNormal', layer='Linear', std=0.02, bias=0.0),
        loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1, mode='original'),
        topk=(1, 5),
        cal_acc=False,
    ),
)

enlarge = dict(type='Resize', scale=(size, size))
train_pipeline = [
    dict(type='RandomCrop', crop_size=28, padding=2),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    enlarge,
    dict(type='PackInputs'),
]
test_pipeline = [enlarge, dict(type='PackInputs')]

dataset = dict(type='FashionMNIST', data_root=data_root, download=False)
train_dataloader = dict(
    batch_size=64,
    num_workers=0,
    dataset=dict(split='train', pipeline=train_pipeline, **dataset),
    sampler=dict(type='DefaultSampler', shuffle=True),
)
val_dataloader = dict(
    batch_size=250,
    num_workers=0,
    # mmpretrain takes the training images unless test_mode is set, whatever the split is called.
    dataset=dict(split='test', test_mode=True, pipeline=test_pipeline, **dataset),
    sampler=dict(type='DefaultSampler', shuffle=False),
)
test_dataloader = val_dataloader
val_evaluator = test_evaluator = dict(type='Accuracy', topk=(1, 5))

max_epochs = 20
train_cfg = dict(by_epoch=True, max_epochs=max_epochs, val_interval=4)
val_cfg = test_cfg = dict()
auto_scale_lr = dict(base_batch_size=64)
optim_wrapper = dict(
    optimizer=dict(type='AdamW', fused=True, lr=3e-3, weight_decay=0.05),
    clip_grad=dict(max_norm=1.0),
    paramwise_cfg=dict(
        norm_decay_mult=0.0,
        bias_decay_mult=0.0,
        custom_keys={'A_logs': dict(decay_mult=0.0), 'Ds': dict(decay_mult=0.0)},
    ),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=True, begin=0, end=1, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=1e-5, by_epoch=True, begin=1, end=max_epochs, convert_to_iter_based=True),
]
default_hooks = dict(checkpoint=dict(interval=4, max_keep_ckpts=1))
