# Table 5, EfficientVMamba-T, first row: atrous scan, no fusion, no inverted residuals.
_base_ = '../classifier_evm_t.py'

model = dict(
    backbone=dict(
        fusion=False, arch=dict(_delete_=True, dims=[48, 96, 192, 384], depths=[2, 2, 4, 2], blocks=['evss'] * 4)
    )
)
