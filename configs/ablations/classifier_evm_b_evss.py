# Table 5, EfficientVMamba-B, second row; Table 8, base, second row: EVSS in every stage.
_base_ = '../classifier_evm_b.py'

model = dict(
    backbone=dict(arch=dict(_delete_=True, dims=[96, 192, 384, 768], depths=[2, 2, 9, 2], blocks=['evss'] * 4))
)
