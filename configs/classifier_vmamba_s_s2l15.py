# VMamba-S, second design (s2l15), on ImageNet-1k, trained from random weights. Total batch 1024.
_base_ = 'classifier_vmamba_s.py'

model = dict(backbone=dict(arch='small_s2l15'))
