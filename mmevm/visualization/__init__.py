"""Pictures of results: detections beside the ground truth, and training curves."""

from mmevm.visualization.curves import draw_curves
from mmevm.visualization.detection_sheet import draw_detection_sheet

__all__ = ['draw_curves', 'draw_detection_sheet']
