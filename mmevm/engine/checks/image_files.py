"""Faults of image files."""

import io
import os
import threading
from typing import BinaryIO, NamedTuple

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

# Formats whose headers Pillow reads; scientific ones have readers of their own.
_SUFFIXES = frozenset(
    '.jpg .jpeg .jpe .jfif .mpo .png .bmp .dib .gif .webp .avif .ppm .pgm .pbm .pnm .tga .ico .pcx .jp2 .heic .heif '
    '.psd .svg'.split()
)
_TRUNCATED = 'it is truncated'
_MOST_PIXELS = 1 << 30
_limit = threading.Lock()


class Fault(NamedTuple):
    """The fault of an image file.

    Attributes:
        reason (str): To follow the file's name.
        readable (bool): Whether it can still be decoded, in part.
    """

    reason: str
    readable: bool = False


def open_image(file: str | BinaryIO) -> Image.Image:
    """Open an image of up to 2^30 pixels, which OpenCV reads, too; ``Image.open`` refuses more than a sixth of that."""
    try:
        return Image.open(file)
    except Image.DecompressionBombError:
        with _limit:
            usual, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, _MOST_PIXELS // 2  # an error from twice that on
            try:
                return Image.open(file)
            finally:
                Image.MAX_IMAGE_PIXELS = usual


def is_known_format(path: str) -> bool:
    """Return whether :func:`find_fault` finds more than that a file is missing or empty."""
    return os.path.splitext(path)[1].lower() in _SUFFIXES


def find_fault(path: str, backend: str = 'cv2', decode: bool = False) -> Fault | None:
    """Check whether an image can be read, without decoding a JPEG, PNG or WebP with the right header and end.

    Args:
        path (str): Local file.
        backend (str): The decoder: ``'pillow'``, or OpenCV for any other name.
        decode (bool): Always decode it.

    Returns:
        Fault | None: ``None`` for a sound file, and for a file of unknown format that is not empty.
    """
    try:
        if not os.path.getsize(path):
            return Fault('it is empty (0 bytes)')
        if not is_known_format(path):
            return None
        with open(path, 'rb') as file:
            if not decode and _is_complete(file):
                return None
            file.seek(0)
            content = file.read()
    except OSError as error:
        return Fault((error.strerror or str(error)).lower())
    return _decoding_fault(content, backend)


def _is_complete(file: BinaryIO) -> bool:
    """Return whether a file is a JPEG, PNG or WebP with a header that can be read, and its end."""
    try:
        with open_image(file) as image:
            kind = image.format
    except Image.DecompressionBombError:  # OpenCV can be told to read it
        return True
    except Exception:  # whatever Pillow's readers raise for bytes that they do not expect
        return False
    if kind in ('JPEG', 'MPO'):  # several pictures, as of a phone
        file.seek(-2, os.SEEK_END)
        return file.read() == b'\xff\xd9' or _has_end_of_image(file)
    if kind == 'PNG':
        file.seek(-12, os.SEEK_END)
        return b'IEND' in file.read()
    if kind == 'WEBP':
        file.seek(4)
        stated = 8 + int.from_bytes(file.read(4), 'little')
        return file.seek(0, os.SEEK_END) >= stated
    return False


def _has_end_of_image(file: BinaryIO) -> bool:
    """Return whether a JPEG has its end marker before trailing bytes; that of a thumbnail does not count."""
    file.seek(0)
    content = file.read()
    position = 2
    while content[position : position + 1] == b'\xff' and content[position + 1 : position + 2] != b'\xda':
        position += 2 + int.from_bytes(content[position + 2 : position + 4], 'big')
    return content.find(b'\xff\xd9', position) >= 0


def _decoding_fault(content: bytes, backend: str) -> Fault | None:
    pillow, opencv = _pillow_fault(content), _opencv_fault(content)
    if pillow if backend == 'pillow' else opencv:
        return Fault(pillow or opencv or '')
    # OpenCV fills the missing part with grey.
    return Fault(pillow, readable=True) if pillow == _TRUNCATED else None


def _pillow_fault(content: bytes) -> str | None:
    try:
        with open_image(io.BytesIO(content)) as image:
            image.load()
    except Image.DecompressionBombError:
        return None
    except UnidentifiedImageError:
        return f'it is not an image, but starts with {content[:16]!r}'
    except Exception as error:  # whatever Pillow's readers raise for bytes that they do not expect
        return _TRUNCATED if 'truncated' in str(error).lower() else f'it is damaged: {error}'
    return None


def _opencv_fault(content: bytes) -> str | None:
    try:
        image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as error:
        return f'OpenCV cannot read it: {error.err}'
    return None if image is not None else 'OpenCV cannot read it'
