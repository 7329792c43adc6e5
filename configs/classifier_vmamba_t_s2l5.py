# VMamba-T, second design (s2l5), on ImageNet-1k, trained from random weights. Total batch 1024.
_base_ = 'classifier_vmamba_s.py'

model = dict(backbone=dict(arch='tiny_s2l5', drop_path_rate=0.2))
