# SegFormer's head on EfficientVMamba-S on ADE20K at 512 x 512, 160k iterations.
# Recipe: mmseg's segformer_mit-b1_8xb2-160k_ade20k-512x512.
_base_ = 'segformer_evm_t.py'

model = dict(
    backbone=dict(arch='small', init_cfg=dict(checkpoint='mmevm://efficient_vmamba_small')),
    # Ours: SegFormer-B1's head has 256 channels; 240 keep the model below 12 GFLOPs at 512 x 512.
    decode_head=dict(in_channels=[64, 128, 256, 512], channels=240),
)
