# Table 5, EfficientVMamba-B, first row: atrous scan, no fusion, no inverted residuals.
_base_ = '../classifier_evm_b.py'

model = dict(
    backbone=dict(
        fusion=False, arch=dict(_delete_=True, dims=[96, 192, 384, 768], depths=[2, 2, 9, 2], blocks=['evss'] * 4)
    )
)
