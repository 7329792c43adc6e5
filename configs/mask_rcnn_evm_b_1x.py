# Mask R-CNN with EfficientVMamba-B on COCO 2017, 12 epochs: the paper's Table 7, upper half.
_base_ = ['_base_/mask_rcnn_evm_b.py', '_base_/coco_instance_1x.py']
