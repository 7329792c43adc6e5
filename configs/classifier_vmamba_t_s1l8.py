# VMamba-T, second design (s1l8), on ImageNet-1k, trained from random weights. Total batch 1024.
_base_ = 'classifier_vmamba_s.py'

model = dict(backbone=dict(arch='tiny_s1l8', drop_path_rate=0.2))
