# Mask R-CNN with EfficientVMamba-T on COCO 2017, 36 epochs at several scales: the paper's Table 7, lower half.
_base_ = ['_base_/mask_rcnn_evm_t.py', '_base_/coco_instance_3x.py']
