# Mask R-CNN with EfficientVMamba-B on COCO 2017, 36 epochs at several scales: the paper's Table 7, lower half.
_base_ = ['_base_/mask_rcnn_evm_b.py', '_base_/coco_instance_3x.py']
