# Table 5, EfficientVMamba-T, second row; Table 6, EVSS only; Table 8, tiny, second row: EVSS in every stage.
_base_ = '../classifier_evm_t.py'

model = dict(backbone=dict(arch=dict(_delete_=True, dims=[48, 96, 192, 384], depths=[2, 2, 4, 2], blocks=['evss'] * 4)))
