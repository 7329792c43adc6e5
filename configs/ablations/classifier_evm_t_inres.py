# Table 8, tiny, first row: inverted residuals in every stage.
_base_ = '../classifier_evm_t.py'

model = dict(
    backbone=dict(arch=dict(_delete_=True, dims=[48, 96, 192, 384], depths=[2, 2, 4, 2], blocks=['inres'] * 4))
)
