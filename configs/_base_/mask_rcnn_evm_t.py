# Mask R-CNN with EfficientVMamba-T and heads of half the width, which give the 11 M parameters of the paper's Table 7.
_base_ = 'mask_rcnn_evm_s.py'

model = dict(
    backbone=dict(
        arch='tiny',
        init_cfg=dict(checkpoint='mmevm://efficient_vmamba_tiny'),
    ),
    neck=dict(in_channels=[48, 96, 192, 384], out_channels=128),
    rpn_head=dict(in_channels=128, feat_channels=128),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=128),
        bbox_head=dict(in_channels=128, fc_out_channels=512),
        mask_roi_extractor=dict(out_channels=128),
        mask_head=dict(in_channels=128, conv_out_channels=128),
    ),
)
