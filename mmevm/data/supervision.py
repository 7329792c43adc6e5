"""The readers of YOLO's and Pascal VOC's formats, which are those of the library supervision."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

from mmevm.errors import UsageError


class Formats(NamedTuple):
    """Functions of ``supervision.dataset.formats``."""

    yolo_annotations_to_detections: Callable[..., Any]
    detections_from_xml_obj: Callable[..., Any]
    parse_polygon_points: Callable[..., Any]


@functools.cache
def formats() -> Formats:
    """Import them.

    Raises:
        UsageError: The library is not installed.
    """
    try:
        from supervision.dataset.formats.pascal_voc import detections_from_xml_obj, parse_polygon_points
        from supervision.dataset.formats.yolo import yolo_annotations_to_detections
    except ImportError as error:
        raise UsageError(
            f"Datasets in YOLO's and Pascal VOC's formats are read with supervision, which cannot be imported "
            f'({error}): pip install "mmevm[data]"'
        ) from error
    return Formats(yolo_annotations_to_detections, detections_from_xml_obj, parse_polygon_points)
