# SSDLite with EfficientVMamba-T on COCO 2017 at 320², 120 passes over 5 copies of it.
# Recipe: mmdet's ssdlite_mobilenetv2-scratch_8xb24-600e_coco, but with the optimizer of mask_rcnn_evm_t_1x, whose
# learning rate, 1e-4 for a batch of 16, is scaled by the square root of the batch to 3.5e-4 for 192.
_base_ = 'mmdet::ssd/ssdlite_mobilenetv2-scratch_8xb24-600e_coco.py'
custom_imports = dict(imports=['mmevm', 'mmevm.heads'], allow_failed_imports=False)

model = dict(
    backbone=dict(
        _delete_=True,
        type='mmevm.EfficientVMamba',
        arch='tiny',
        out_indices=(2, 3),
        drop_path_rate=0.1,  # ours; MobileNetV2 has none
        # Upstream's ImageNet checkpoint, from the zoo. From random weights:
        # --cfg-options model.backbone.init_cfg=None
        init_cfg=dict(type='Pretrained', checkpoint='mmevm://efficient_vmamba_tiny'),
    ),
    neck=dict(in_channels=(192, 384), out_channels=(192, 384, 512, 256, 256, 128)),
    # MMDetection's own head of this name cannot predict since 3.2.
    bbox_head=dict(type='mmevm.SSDHead', in_channels=(192, 384, 512, 256, 256, 128)),
)

optim_wrapper = dict(
    optimizer=dict(_delete_=True, type='AdamW', fused=True, lr=3.5e-4, weight_decay=0.05),
    paramwise_cfg=dict(
        norm_decay_mult=0.0,
        custom_keys={
            'A_logs': dict(decay_mult=0.0),
            'Ds': dict(decay_mult=0.0),
        },
    ),
)

default_hooks = dict(checkpoint=dict(max_keep_ckpts=3))
