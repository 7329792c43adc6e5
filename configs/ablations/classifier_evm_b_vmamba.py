# Table 5, VMamba-B: the baseline; widths and depths are inferred.
# EfficientVMamba-B's depths, and the width with which they have the table's 16 M and 4.2 G.
_base_ = '../classifier_evm_b.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='mmevm.VMamba',
        arch=dict(dims=[80, 160, 320, 640], depths=[2, 2, 9, 2]),
        out_indices=(3,),
        drop_path_rate=0.1,
    ),
    head=dict(in_channels=640),
)
