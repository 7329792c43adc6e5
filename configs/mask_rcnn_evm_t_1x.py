# Mask R-CNN with EfficientVMamba-T on COCO 2017, 12 epochs: the paper's Table 7, upper half.
_base_ = ['_base_/mask_rcnn_evm_t.py', '_base_/coco_instance_1x.py']
