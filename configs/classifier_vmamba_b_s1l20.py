# VMamba-B of the later design s1l20 on ImageNet-1k, trained from random weights. Total batch 1024.
_base_ = 'classifier_vmamba_b.py'

model = dict(backbone=dict(arch='base_s1l20', drop_path_rate=0.5))
