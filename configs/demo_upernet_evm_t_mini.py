# configs/upernet_evm_t.py on miniature ADE20K: from random weights, with another data root, image size and schedule.
_base_ = 'upernet_evm_t.py'

data_root = 'data/demo/ade/ADEChallengeData2016'
size = (128, 128)

model = dict(
    data_preprocessor=dict(size=size),
    backbone=dict(init_cfg=None, drop_path_rate=0.0),
    # A narrow decoder; at 256 channels it would take nine tenths of the time.
    decode_head=dict(channels=64),
    auxiliary_head=dict(channels=64),
)

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='RandomResize', scale=size, ratio_range=(1.0, 1.5), keep_ratio=True),
    dict(type='RandomCrop', crop_size=size, cat_max_ratio=0.75),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'),
    dict(type='PackSegInputs'),
]
test_pipeline = _base_.test_pipeline
test_pipeline[1].scale = size
train_dataloader = dict(batch_size=4, num_workers=1, dataset=dict(data_root=data_root, pipeline=train_pipeline))
val_dataloader = dict(batch_size=8, num_workers=1, dataset=dict(data_root=data_root, pipeline=test_pipeline))
test_dataloader = val_dataloader

max_iters = 400
train_cfg = dict(max_iters=max_iters, val_interval=100)
auto_scale_lr = dict(base_batch_size=4)
optim_wrapper = dict(optimizer=dict(lr=1e-3), clip_grad=dict(max_norm=1.0))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=40),
    dict(type='PolyLR', eta_min=1e-5, power=1.0, by_epoch=False, begin=40, end=max_iters),
]
default_hooks = dict(logger=dict(interval=10), checkpoint=dict(interval=max_iters))
