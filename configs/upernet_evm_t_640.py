# UperNet with EfficientVMamba-T on ADE20K at 640 x 640, 160k iterations: named in the paper's section 5.3.
_base_ = ['_base_/upernet_evm_t.py', '_base_/ade20k_640.py', '_base_/ade20k_160k.py']

model = dict(data_preprocessor=dict(size=(640, 640)))
