# RTMDet-s with EfficientVMamba-S, as wide as its own backbone, on COCO 2017, 300 epochs at 640².
# Recipe: mmdet's rtmdet_s_8xb32-300e_coco.
_base_ = 'mmdet::rtmdet/rtmdet_s_8xb32-300e_coco.py'
custom_imports = dict(imports=['mmevm'], allow_failed_imports=False)
checkpoint = None  # the base names the weights of RTMDet's own backbone here

model = dict(
    # RGB, as the weights expect, where RTMDet's own have BGR.
    data_preprocessor=dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True),
    backbone=dict(
        _delete_=True,
        type='mmevm.EfficientVMamba',
        arch='small',
        out_indices=(1, 2, 3),
        drop_path_rate=0.1,  # ours; RTMDet's own backbone has none
        # Upstream's ImageNet checkpoint, from the zoo. From random weights:
        # --cfg-options model.backbone.init_cfg=None
        init_cfg=dict(type='Pretrained', checkpoint='mmevm://efficient_vmamba_small'),
    ),
)

auto_scale_lr = dict(base_batch_size=256)
optim_wrapper = dict(
    optimizer=dict(fused=True),
    paramwise_cfg=dict(custom_keys={'A_logs': dict(decay_mult=0.0), 'Ds': dict(decay_mult=0.0)}),
)
