"""Pictures of results: predictions beside the ground truth, and training curves."""

from demo.visualization.classification_sheet import Classified, draw_classification_sheet
from demo.visualization.curves import draw_curves
from demo.visualization.detection_sheet import draw_detection_sheet
from demo.visualization.segmentation_sheet import draw_segmentation_sheet

__all__ = [
    'Classified',
    'draw_classification_sheet',
    'draw_curves',
    'draw_detection_sheet',
    'draw_segmentation_sheet',
]
