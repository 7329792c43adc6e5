# EfficientVMamba-T on ImageNet-1k, trained from random weights: the paper's Table 2. Total batch 2048.
_base_ = '_base_/imagenet_300e.py'
custom_imports = dict(imports=['mmevm'], allow_failed_imports=False)

model = dict(
    type='ImageClassifier',
    backbone=dict(type='mmevm.EfficientVMamba', arch='tiny', out_indices=(3,), drop_path_rate=0.1),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='LinearClsHead',
        num_classes=1000,
        in_channels=384,
        init_cfg=dict(type='TruncNormal', layer='Linear', std=0.02, bias=0.0),
        loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1, mode='original'),
        topk=(1, 5),
        cal_acc=False,
    ),
    train_cfg=dict(augments=[dict(type='Mixup', alpha=0.2), dict(type='CutMix', alpha=1.0)]),
)
