# Table 8, base, first row: inverted residuals in every stage.
_base_ = '../classifier_evm_b.py'

model = dict(
    backbone=dict(arch=dict(_delete_=True, dims=[96, 192, 384, 768], depths=[2, 2, 9, 2], blocks=['inres'] * 4))
)
