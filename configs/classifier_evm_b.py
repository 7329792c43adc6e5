# EfficientVMamba-B on ImageNet-1k, trained from random weights: the paper's Table 2. Total batch 1024.
_base_ = 'classifier_evm_t.py'

model = dict(backbone=dict(arch='base'), head=dict(in_channels=768))

# 16 processes of 64 images; the logged learning rate is that of the batch of 2048 nevertheless.
train_dataloader = dict(batch_size=64)
auto_scale_lr = dict(base_batch_size=1024)
