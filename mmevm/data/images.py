"""Image files: their size as OpenMMLab's loaders see it, and their faults."""

import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from mmevm.data.records import Findings, Sample, UserData
from mmevm.engine.checks.image_files import find_fault, open_image

_ORIENTATION = 0x0112
_BROKEN = 'Images that are missing or cannot be read:'


def image_size(path: str) -> tuple[int, int] | None:
    """Return width and height of an image after EXIF's rotation, ``None`` if they cannot be read."""
    try:
        if path.lower().endswith('.npy'):
            height, width = np.load(path, mmap_mode='r').shape[:2]
            return width, height
        if path.lower().endswith(('.tif', '.tiff')):
            return _tiff_size(path)
        with open_image(path) as image:
            turned = image.getexif().get(_ORIENTATION, 1) >= 5
            return image.size[::-1] if turned else image.size
    except Exception:  # whatever readers raise for bytes that they do not expect
        return None


def is_turned(path: str) -> bool:
    """Return whether the EXIF orientation of an image exchanges its width and height."""
    try:
        with open_image(path) as image:
            return image.getexif().get(_ORIENTATION, 1) >= 5
    except Exception:  # whatever readers raise for bytes that they do not expect
        return False


def _tiff_size(path: str) -> tuple[int, int]:
    from tifffile import TiffFile  # knows images of any number of channels, which Pillow does not

    with TiffFile(path) as file:
        page = file.pages[0]
        ends = map(sum, zip(page.dataoffsets, page.databytecounts, strict=True))
        if max(ends, default=0) > os.path.getsize(path):
            raise ValueError('truncated')
        return page.imagewidth, page.imagelength


def measure(samples: Iterable[Sample]) -> None:
    """Set ``size`` of images, and ``fault`` of those that cannot be read."""
    with ThreadPoolExecutor(min(16, (os.cpu_count() or 1) * 4)) as pool:
        list(pool.map(_measure, samples))


def _measure(sample: Sample) -> None:
    sample.fault = _name_fault(sample)
    if sample.fault:
        return
    fault = find_fault(sample.path)
    sample.size = None if fault else image_size(sample.path)
    if fault:
        sample.fault = fault.reason
    elif sample.size is None:
        sample.fault = 'it is damaged, truncated, or has more than 2^30 pixels'
    if not sample.fault and sample.mask and (fault := find_fault(sample.mask, 'pillow')):
        sample.fault = f'its label map {sample.mask}: {fault.reason}'


def _name_fault(sample: Sample) -> str:
    """Return why lists of files cannot hold a sample's names."""
    for path in filter(None, (sample.path, sample.mask)):
        if not path.isprintable():
            return 'its name has bytes that are not UTF-8, or characters that cannot be printed'
        if sample.mask and any(part != part.strip() for part in (os.path.basename(path), os.path.splitext(path)[0])):
            return 'its name, or that of its label map, begins or ends with a space'
    return ''


def report_broken(data: UserData) -> None:
    """Add the images that cannot be read to the findings."""
    broken = [f'{sample.path}: {sample.fault}' for sample in data.samples() if sample.fault]
    if broken:
        data.findings.fault(_BROKEN, *broken)


def report_unlisted(findings: Findings, listed: Iterable[str], present: Iterable[str], where: str) -> None:
    """Note images that no annotation file lists."""
    extra = sorted(set(present) - set(listed))
    if extra:
        findings.note(f'Images that {where} does not list:', *extra)
