# VMamba-B, first design, on ImageNet-1k, trained from random weights. Total batch 1024.
_base_ = 'classifier_vmamba_s.py'

model = dict(backbone=dict(arch='base', drop_path_rate=0.6), head=dict(in_channels=1024))
