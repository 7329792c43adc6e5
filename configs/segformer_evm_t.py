# SegFormer's head on EfficientVMamba-T on ADE20K at 512 x 512, 160k iterations.
# Recipe: mmseg's segformer_mit-b0_8xb2-160k_ade20k-512x512: Swin's, with ten times the learning rate in the head.
# As there, the head's norms decay and the backbone's do not; A_logs and Ds, which MiT lacks, do not decay either.
_base_ = ['_base_/segmentor_evm_t.py', '_base_/ade20k.py', '_base_/ade20k_160k.py']

model = dict(
    decode_head=dict(
        type='SegformerHead',
        in_channels=[48, 96, 192, 384],
        in_index=[0, 1, 2, 3],
        channels=256,
        dropout_ratio=0.1,
        num_classes=150,
        norm_cfg=dict(type='SyncBN', requires_grad=True),
        align_corners=False,
        loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0),
    ),
)

optim_wrapper = dict(paramwise_cfg=dict(custom_keys={'decode_head': dict(lr_mult=10.0)}))
