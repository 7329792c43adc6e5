"""Image files: their size as OpenMMLab's loaders see it, their pixels, and their faults."""

import os
import unicodedata
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import ImageOps

from mmevm.data.records import Findings, Sample, UserData
from mmevm.engine.checks.image_files import find_fault, open_image
from mmevm.engine.checks.tiff_files import TIFF, read_tiff, tiff_size, tiff_values
from mmevm.errors import UsageError

EXACT = ('.npy', *TIFF)
"""Suffixes of images of any number of channels; others are read as Pillow has them."""

_ORIENTATION = 0x0112
# Modes whose arrays are what a PNG file holds; CMYK and LAB would pass for RGBA and RGB, a palette's indices for grey.
_PLAIN = ('1', 'L', 'LA', 'RGB', 'RGBA', 'I;16')
_WITH_ORIENTATION = ('.jpg', '.jpeg', '.jpe', '.jfif', '.png')
_BROKEN = 'Images that are missing or cannot be read:'


def image_size(path: str) -> tuple[int, int] | None:
    """Return width and height of an image after EXIF's rotation, ``None`` if they cannot be read.

    Raises:
        UsageError: What reads it is not installed.
    """
    return _size_and_orientation(path)[0]


def is_turned(path: str) -> bool:
    """Return whether the EXIF orientation of an image exchanges its width and height."""
    return _size_and_orientation(path)[1] >= 5


def _size_and_orientation(path: str) -> tuple[tuple[int, int] | None, int]:
    """Return :func:`image_size`, and the orientation in EXIF's numbers: 1 is upright, from 5 on sides are exchanged."""
    try:
        if path.lower().endswith('.npy'):
            height, width = np.load(path, mmap_mode='r').shape[:2]
            return (width, height), 1
        if path.lower().endswith(TIFF):
            return tiff_size(path), 1
        with open_image(path) as image:
            # OpenCV applies it in these formats alone.
            found = image.getexif().get(_ORIENTATION, 1) if path.lower().endswith(_WITH_ORIENTATION) else 1
            orientation = found if found in range(1, 9) else 1
            return (image.size[::-1] if orientation >= 5 else image.size), orientation
    except UsageError:
        raise
    except Exception:  # whatever readers raise for bytes that they do not expect
        return None, 1


def read_pixels(path: str) -> np.ndarray:
    """Read Array[H, W] or Array[H, W, C], turned as EXIF says; colours are RGB, and transparency stays.

    Raises:
        UsageError: It cannot be read.
    """
    try:
        if path.lower().endswith('.npy'):
            return np.load(path)
        if path.lower().endswith(TIFF) and (bands := read_tiff(path)) is not None:
            return bands
        with open_image(path) as image:
            turned = ImageOps.exif_transpose(image)
            if turned.mode == 'I':  # of a PGM with 16 bits
                return np.asarray(turned).astype(np.uint16)
            return np.asarray(turned if turned.mode in _PLAIN else turned.convert('RGB'))
    except UsageError:
        raise
    except Exception as error:  # whatever readers raise for bytes that they do not expect
        raise UsageError(f'{path} cannot be read: {error}') from error


def measure(samples: Iterable[Sample]) -> None:
    """Set ``size`` and what is unusual of images, and ``fault`` of those that cannot be read."""
    with ThreadPoolExecutor(min(16, (os.cpu_count() or 1) * 4)) as pool:
        list(pool.map(_measure, samples))


def _measure(sample: Sample) -> None:
    sample.fault = _name_fault(sample)
    if sample.fault:
        return
    fault = find_fault(sample.path)
    if not fault:
        sample.size, sample.orientation = _size_and_orientation(sample.path)
    if fault:
        sample.fault = fault.reason
    elif sample.size is None:
        sample.fault = 'it is damaged, truncated, or has more than 2^30 pixels'
    if not sample.fault and sample.mask and (fault := find_fault(sample.mask, 'pillow')):
        sample.fault = f'its label map {sample.mask}: {fault.reason}'
    if not sample.fault:
        sample.deep, sample.banded = _is_deep_and_banded(sample.path)


def is_writable(name: str) -> bool:
    """Return whether lists of names, one a line in UTF-8, can hold a name."""
    return {'Cs', 'Cc', 'Zl', 'Zp'}.isdisjoint(map(unicodedata.category, name))


def _name_fault(sample: Sample) -> str:
    """Return why lists of files cannot hold a sample's names."""
    for path in filter(None, (sample.path, sample.mask)):
        if not is_writable(path):
            return 'its name has bytes that are not UTF-8, line breaks or other control characters'
        if sample.mask and any(part != part.strip() for part in (os.path.basename(path), os.path.splitext(path)[0])):
            return 'its name, or that of its label map, begins or ends with a space'
    return ''


def report_broken(data: UserData) -> None:
    """Add the images that cannot be read to the findings."""
    broken = [f'{sample.path}: {sample.fault}' for sample in data.samples() if sample.fault]
    if broken:
        data.findings.fault(_BROKEN, *broken)


def report_unusual(data: UserData) -> None:
    """Note images that loaders change: of 16 bits, some of which become black, of more bands, and turned by EXIF."""
    if deep := [sample.path for sample in data.samples() if sample.deep and not sample.fault]:
        heading = "Images of 16 bits, of which loaders keep the upper 8 unless color_type is 'unchanged':"
        data.findings.note(heading, *deep)
    if banded := [sample.path for sample in data.samples() if sample.banded and not sample.fault]:
        heading = "TIFF files with more than three bands; loaders keep three unless color_type is 'unchanged':"
        data.findings.note(heading, *banded)
    turned = [sample.path for sample in data.samples() if sample.orientation > 1 and not _is_compared(data, sample)]
    if turned and data.kind != 'classification':
        heading = 'Images that loaders turn or mirror by their EXIF orientation; annotations must match the result:'
        data.findings.note(heading, *turned)


def _is_compared(data: UserData, sample: Sample) -> bool:
    """Return whether another check compares the turned size: with what annotations state, or with a label map's."""
    has_sides = sample.size is not None and sample.size[0] != sample.size[1]
    return has_sides and sample.orientation >= 5 and (sample.stated is not None or data.kind == 'segmentation')


def _is_deep_and_banded(path: str) -> tuple[bool, bool]:
    """Return whether an image has values of 16 bits, and whether it is a TIFF of more than three bands."""
    try:
        if path.lower().endswith(TIFF):
            bits, bands = tiff_values(path)
            return bits == 16, bands > 3
        with open_image(path) as image:
            return image.mode.startswith('I'), False
    except Exception:  # whatever readers raise for bytes that they do not expect
        return False, False


def report_shared(findings: Findings, kind: str, pairs: Iterable[tuple[str, str]]) -> None:
    """Report annotation files of several images.

    Args:
        findings (Findings): What is wrong.
        kind (str): What the files are.
        pairs (Iterable[tuple[str, str]]): A file and an image of it.
    """
    images: dict[str, dict[str, None]] = {}
    for file, image in pairs:
        images.setdefault(file, {})[image] = None
    for file, found in images.items():
        if len(found) > 1:
            findings.problem(f'Several images for one {kind}; keep one of them:', f'{file}: {" and ".join(found)}')


def report_unlisted(findings: Findings, listed: Iterable[str], present: Iterable[str], where: str) -> None:
    """Note images that no annotation file lists."""
    extra = sorted(set(present) - set(listed))
    if extra:
        findings.note(f'Images that {where} does not list:', *extra)
