"""TIFF files of any number of channels, which neither Pillow nor OpenCV reads."""

import os
from typing import Any

import numpy as np

from mmevm.engine.checks.image_files import Fault
from mmevm.errors import UsageError

TIFF = ('.tif', '.tiff')
"""Suffixes of these files."""

_INTERLEAVE = 'save it with interleaved bands (planarconfig="contig" in tifffile, INTERLEAVE=PIXEL in GDAL)'


def tiff_size(path: str) -> tuple[int, int]:
    """Return width and height of a TIFF.

    Raises:
        UsageError: tifffile cannot be imported.
        ValueError: The file is truncated; tifffile raises others for files that it cannot read.
    """
    with _library().TiffFile(path) as file:
        page, series = file.pages[0], file.series[0]
        ends = map(sum, zip(page.dataoffsets, page.databytecounts, strict=True))
        if max(ends, default=0) > os.path.getsize(path):
            raise ValueError('truncated')
        axes = _axes(series)
        return series.shape[axes.index('X')], series.shape[axes.index('Y')]


def read_tiff(path: str) -> np.ndarray | None:
    """Read a TIFF as Array[H, W] or Array[H, W, C], however its bands are stored; ``None`` if its values are no bands.

    Those of a palette, of inks, of CIELAB, of two colours or of greys where 0 is white are not.

    Raises:
        UsageError: It has more than one page, or tifffile cannot be imported.
    """
    with _library().TiffFile(path) as file:
        series = file.series[0]
        if _encoded(file):
            return None
        axes, pixels = _axes(series), series.asarray()
    if axes not in ('YX', 'YXS', 'SYX'):
        raise UsageError(f'{path}: expected an image of one page, got pages of shape {pixels.shape}: {_INTERLEAVE}')
    return np.moveaxis(pixels, 0, -1) if axes == 'SYX' else pixels


def tiff_fault(path: str) -> Fault | None:
    """Return what keeps MMCV's decoder ``'tifffile'`` from reading a TIFF as Array[H, W] or Array[H, W, C].

    Raises:
        UsageError: tifffile cannot be imported.
    """
    library = _library()
    if not path.lower().endswith(TIFF):
        return None
    try:
        with library.TiffFile(path) as file:
            axes, shape, encoded = _axes(file.series[0]), file.series[0].shape, _encoded(file)
    except Exception as error:  # whatever tifffile raises for bytes that it does not expect
        return Fault(f'it is damaged: {error}')
    if encoded:
        return Fault(f'its values stand for others ({encoded}): convert it to RGB or grey')
    if axes in ('YX', 'YXS'):
        return None
    return Fault(f'it is stored plane by plane or in pages, and would be read with shape {shape}: {_INTERLEAVE}')


def _library() -> Any:
    try:
        import tifffile
    except ImportError as error:
        raise UsageError(
            f'TIFF files are read with tifffile, which cannot be imported ({error}): pip install tifffile'
        ) from error
    return tifffile


def _encoded(file: Any) -> str | None:
    """Return the photometric interpretation of a TIFF whose values are not what is seen."""
    page = file.pages[0]
    photometric = getattr(page.photometric, 'name', None)
    if photometric in ('PALETTE', 'SEPARATED', 'CIELAB', 'ICCLAB', 'ITULAB', 'MINISWHITE') or page.bitspersample == 1:
        return f'{photometric}, {page.bitspersample} bits'
    return None


def _axes(series: Any) -> str:
    """Return the axes of a TIFF's array; tifffile itself takes rows for pages if it wrote [H, W, C] without a hint."""
    rows_first = series.axes == 'QYX' and series.shape[2] < series.shape[0]
    return 'YXS' if rows_first or series.axes == 'YXQ' else series.axes
