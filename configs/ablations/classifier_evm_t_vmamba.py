# Table 5, VMamba-T: the baseline, whose scans run over the whole map; its authors have stated widths and depths.
_base_ = '../classifier_evm_t.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='mmevm.VMamba',
        arch=dict(dims=[32, 64, 128, 256], depths=[2, 2, 4, 2]),
        out_indices=(3,),
        drop_path_rate=0.1,
    ),
    head=dict(in_channels=256),
)
