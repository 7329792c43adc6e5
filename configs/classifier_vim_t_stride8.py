# Vim-T with patches every 8 pixels on ImageNet-1k, tuned for 30 epochs from stride 16. Total batch 1024.
_base_ = 'classifier_vim_t.py'

model = dict(backbone=dict(patch_stride=8))
# The whole classifier, with its head. Its 14 x 14 positions are interpolated to 27 x 27, the class token's kept in the
# middle; upstream's script takes the first position for the class token's, and interpolates that of the middle too.
load_from = 'mmevm://vim_tiny'

# Upstream's 5e-6 is for a batch of 512. Scaled, it is what the warm-up starts from and the cosine ends at: a constant.
optim_wrapper = dict(optimizer=dict(lr=1e-5, weight_decay=1e-8))
param_scheduler = None
train_cfg = dict(max_epochs=30)
