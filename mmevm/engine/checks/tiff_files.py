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


def tiff_values(path: str) -> tuple[int, int]:
    """Return the bits of a TIFF's values, and its bands: three if they are encoded (CMYK, palettes).

    A fourth band counts even if it is declared as transparency, since writers declare any fourth one so. Raises as
    :func:`tiff_size`.
    """
    with _library().TiffFile(path) as file:
        page = file.pages[0]
        return int(page.bitspersample), 3 if _encoding(page) else int(page.samplesperpixel)


def read_tiff(path: str) -> np.ndarray | None:
    """Read a TIFF as Array[H, W] or Array[H, W, C], however its bands are stored.

    Returns:
        ndarray | None: ``None`` if its values have to be converted to be seen (palette, CMYK, …).

    Raises:
        UsageError: It has more than one page, its tag turns what has to be converted, or tifffile cannot be imported.
    """
    with _library().TiffFile(path) as file:
        page, series = file.pages[0], file.series[0]
        axes = _axes(series)
        if axes not in ('YX', 'YXS', 'SYX'):
            raise UsageError(f'{path}: expected an image of one page, got pages of shape {series.shape}: {_INTERLEAVE}')
        if _encoding(page):
            if (turn := page.tags.get('Orientation')) is not None and turn.value != 1:
                raise UsageError(f'{path}: its orientation tag turns it; save it upright')
            return None
        pixels = series.asarray()
    if _name(page.photometric) == 'MINISWHITE' and 'PhotometricInterpretation' in page.tags and axes == 'YX':
        pixels = np.iinfo(pixels.dtype).max - pixels if pixels.dtype.kind == 'u' else pixels
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
            axes, shape, encoding = _axes(file.series[0]), file.series[0].shape, _encoding(file.pages[0])
    except Exception as error:  # whatever tifffile raises for bytes that it does not expect
        return Fault(f'it is damaged: {error}')
    if encoding:
        return Fault(f'its values are encoded ({encoding}) and would be taken as they are: save RGB or grey')
    if axes in ('YX', 'YXS'):
        return None
    return Fault(f'it is stored plane by plane or in pages, and would be read with shape {shape}: {_INTERLEAVE}')


def opencv_fault(path: str, colours: str) -> Fault | None:
    """Return what keeps MMCV's decoder ``'cv2'`` from reading an intact TIFF with a ``color_type``."""
    import mmcv

    try:
        if mmcv.imread(path, flag=colours, backend='cv2') is not None:
            return None
    except Exception:  # OpenCV's own, for some
        pass
    try:
        tiff_size(path)
    except Exception:  # it is damaged, or tifffile is missing
        return None
    return Fault(
        'OpenCV cannot decode its values or number of bands: save it with 8 bits and at most 4 bands, or set '
        "imdecode_backend='tifffile' and color_type='unchanged' in LoadImageFromFile"
    )


def _library() -> Any:
    try:
        import tifffile
    except ImportError as error:
        raise UsageError(
            f'TIFF files are read with tifffile, which cannot be imported ({error}): pip install tifffile'
        ) from error
    return tifffile


def _name(value: Any) -> str:
    return getattr(value, 'name', str(value))


def _encoding(page: Any) -> str | None:
    """Return the name of an encoding whose values are not the bands that are seen."""
    photometric, samples = _name(page.photometric), page.samplesperpixel
    if photometric in ('PALETTE', 'CIELAB', 'ICCLAB', 'ITULAB') or (photometric == 'SEPARATED' and samples == 4):
        return photometric
    if photometric == 'YCBCR' and 'JPEG' not in _name(page.compression):  # tifffile converts those
        return photometric
    return 'one bit' if page.bitspersample == 1 and samples == 1 else None


def _axes(series: Any) -> str:
    """Return the axes of a TIFF's array; tifffile itself takes rows for pages if it wrote [H, W, C] without a hint."""
    rows_first = series.axes == 'QYX' and series.shape[2] < series.shape[0]
    return 'YXS' if rows_first or series.axes == 'YXQ' else series.axes
