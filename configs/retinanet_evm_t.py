# RetinaNet with EfficientVMamba-T on COCO 2017, 12 epochs: the paper's Table 3.
_base_ = [
    'mmdet::_base_/models/retinanet_r50_fpn.py',
    'mmdet::_base_/datasets/coco_detection.py',
    'mmdet::_base_/schedules/schedule_1x.py',
    'mmdet::_base_/default_runtime.py',
]
custom_imports = dict(imports=['mmevm'], allow_failed_imports=False)

model = dict(
    backbone=dict(
        _delete_=True,
        type='mmevm.EfficientVMamba',
        arch='tiny',
        out_indices=(0, 1, 2, 3),
        drop_path_rate=0.2,
        # Upstream's ImageNet checkpoint, from the zoo. From random weights:
        # --cfg-options model.backbone.init_cfg=None
        init_cfg=dict(type='Pretrained', checkpoint='mmevm://efficient_vmamba_tiny'),
    ),
    neck=dict(in_channels=[48, 96, 192, 384], start_level=1, add_extra_convs='on_input'),
)

# The FPN starts at the second map, so the first map's output norm gets no gradient.
find_unused_parameters = True

# Optimizer, learning rate, weight decay and milestones: mmdet's configs/pvt/retinanet_pvt-t_fpn_1x_coco.py, which the
# paper follows for RetinaNet; no decay on norms and state parameters: upstream's optimizer.
train_dataloader = dict(batch_size=2)
auto_scale_lr = dict(base_batch_size=16)
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type='AdamW', fused=True, lr=1e-4, weight_decay=1e-4),
    paramwise_cfg=dict(
        norm_decay_mult=0.0,
        custom_keys={
            'A_logs': dict(decay_mult=0.0),
            'Ds': dict(decay_mult=0.0),
        },
    ),
)

default_hooks = dict(checkpoint=dict(max_keep_ckpts=3))
