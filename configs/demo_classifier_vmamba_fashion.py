# A narrow VMamba of the second design on Fashion-MNIST.
_base_ = '_base_/fashion_mnist.py'

model = dict(
    backbone=dict(
        type='mmevm.VMamba',
        arch=dict(dims=[32, 64, 128], depths=[1, 2, 2], design='v2', ssm_ratio=1.0),
        in_channels=1,
        out_indices=(2,),
    ),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(in_channels=128),
)
