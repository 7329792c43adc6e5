# Vim-S with patches every 8 pixels on ImageNet-1k, tuned for 30 epochs from stride 16. Total batch 1024.
_base_ = 'classifier_vim_t_stride8.py'

model = dict(backbone=dict(arch='small'), head=dict(in_channels=384))
load_from = 'mmevm://vim_small'
