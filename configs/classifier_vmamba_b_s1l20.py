# VMamba-B, second design (s1l20), on ImageNet-1k, trained from random weights. Total batch 1024.
_base_ = 'classifier_vmamba_b.py'

# Upstream's model says 0.5; its config has said 0.5 and 0.6, and which of them the released file had is not stated.
model = dict(backbone=dict(arch='base_s1l20', drop_path_rate=0.5))
