# Table 6, 'previous': inverted residuals in stages 1 and 2, EVSS in stages 3 and 4.
_base_ = '../classifier_evm_t.py'

model = dict(
    backbone=dict(
        arch=dict(
            _delete_=True, dims=[48, 96, 192, 384], depths=[2, 2, 4, 2], blocks=['inres', 'inres', 'evss', 'evss']
        )
    )
)
