# UperNet with Vim-S on ADE20K at 512 x 512, 60k iterations of batch 32, as upstream's script trains it.
# Upstream's config adds rotary positions; here they are absolute alone, as in the released weights.
_base_ = 'upernet_vim_t.py'

model = dict(
    backbone=dict(arch='small', init_cfg=dict(checkpoint='mmevm://vim_small')),
    neck=dict(embed_dim=384),
    decode_head=dict(in_channels=[384, 384, 384, 384], channels=384),
    auxiliary_head=dict(in_channels=384),
)

optim_wrapper = dict(optimizer=dict(lr=1e-4, weight_decay=0.05), paramwise_cfg=dict(layer_decay=0.95))
