# EfficientVMamba-S on ImageNet-1k, trained from random weights: the paper's Table 2. Total batch 2048.
_base_ = 'classifier_evm_t.py'

model = dict(backbone=dict(arch='small'), head=dict(in_channels=512))
