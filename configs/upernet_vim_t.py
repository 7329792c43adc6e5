# UperNet with Vim-T on ADE20K at 512 x 512, 60k iterations of batch 32, as upstream's script trains it.
# Upstream leaves the class token out, takes Vim-T's maps from the mixers alone and does not normalise the last one.
# Here the token stays in the middle, where the released weights have it, and the maps are the sums over the blocks.
_base_ = ['_base_/upernet.py', '_base_/ade20k.py', '_base_/ade20k_160k.py']

model = dict(
    data_preprocessor=dict(size=(512, 512)),
    backbone=dict(
        type='mmevm.Vim',
        arch='tiny',
        img_size=512,
        out_indices=(5, 11, 17, 23),
        out_type='featmap',
        # The default of upstream's backbone; its configs and scripts for segmentation name none.
        drop_path_rate=0.1,
        # Upstream's ImageNet checkpoint, converted on load. From random weights:
        # --cfg-options model.backbone.init_cfg=None
        init_cfg=dict(type='Pretrained', checkpoint='mmevm://vim_tiny'),
    ),
    neck=dict(type='Feature2Pyramid', embed_dim=192, rescales=[4, 2, 1, 0.5]),
    decode_head=dict(in_channels=[192, 192, 192, 192], channels=192),
    auxiliary_head=dict(in_channels=192),
    test_cfg=dict(mode='slide', crop_size=(512, 512), stride=(341, 341)),
)

# 4 processes of 8 images; that they were on one machine is inferred.
train_dataloader = dict(batch_size=8)
auto_scale_lr = dict(base_batch_size=32)
# Blocks are counted as BEiT's recipe counts them, whose layer decay upstream's configs name.
optim_wrapper = dict(
    optimizer=dict(lr=2e-4, weight_decay=0.1),
    constructor='mmevm.LayerDecay',
    paramwise_cfg=dict(_delete_=True, layer_decay=0.92),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-6, by_epoch=False, begin=0, end=1500),
    dict(type='PolyLR', eta_min=0.0, power=1.0, by_epoch=False, begin=1500, end=60000),
]
train_cfg = dict(max_iters=60000, val_interval=6000)
default_hooks = dict(checkpoint=dict(interval=6000))
