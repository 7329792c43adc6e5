# A narrow and shallow Vim on Fashion-MNIST: 7 x 7 patches.
_base_ = '_base_/fashion_mnist.py'

model = dict(
    backbone=dict(
        type='mmevm.Vim',
        arch=dict(dims=[64], depths=[4]),
        in_channels=1,
        img_size=56,
        patch_stride=6,
        out_indices=(3,),
        out_type='cls_token',
    ),
    head=dict(in_channels=64),
)
