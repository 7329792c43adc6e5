# VMamba-S, first design, on ImageNet-1k, trained from random weights. Total batch 1024.
_base_ = 'classifier_vmamba_t.py'

model = dict(backbone=dict(arch='small', drop_path_rate=0.3))

# The released weights are a moving average, which VMamba-T did without.
custom_hooks = [dict(type='EMAHook', momentum=1e-4, priority='ABOVE_NORMAL')]
