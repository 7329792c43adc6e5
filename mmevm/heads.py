"""Detection heads of MMDetection with faults mended; importing this module needs mmdet."""

from mmdet.models.dense_heads import SSDHead as MMDetSSDHead

from mmevm.registry import MODELS


@MODELS.register_module()
class SSDHead(MMDetSSDHead):
    """MMDetection's SSD head, which can predict.

    Since MMDetection 3.2 the base class of dense heads reads ``loss_cls``, and its SSD head has none: every prediction
    ends in an AttributeError (mmdetection issue 11063).
    """

    loss_cls = None
