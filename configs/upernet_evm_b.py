# UperNet with EfficientVMamba-B on ADE20K at 512 x 512, 160k iterations: the paper's Table 4.
_base_ = ['_base_/upernet_evm_b.py', '_base_/ade20k.py', '_base_/ade20k_160k.py']

model = dict(data_preprocessor=dict(size=(512, 512)))
