# Vim-S on ImageNet-1k, trained from random weights, as upstream's script trains it. Total batch 512.
_base_ = 'classifier_vim_t.py'

model = dict(backbone=dict(arch='small', drop_path_rate=0.05), head=dict(in_channels=384))

# 8 processes of 64 images, with the learning rate that Vim-T has for twice as many.
train_dataloader = dict(batch_size=64)
auto_scale_lr = dict(base_batch_size=512)
optim_wrapper = dict(optimizer=dict(weight_decay=0.05))
