"""What is wrong with an image file."""

import io
import os
from typing import BinaryIO, NamedTuple

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

# Formats whose headers Pillow reads; scientific ones have readers of their own.
_SUFFIXES = {'.jpg', '.jpeg', '.jpe', '.png', '.bmp', '.gif', '.webp', '.ppm', '.pgm'}
_TRUNCATED = 'it is truncated'


class Fault(NamedTuple):
    """What is wrong with an image file.

    Attributes:
        reason (str): To follow the file's name.
        readable (bool): Whether it decodes nevertheless, in part.
    """

    reason: str
    readable: bool = False


def is_known_format(path: str) -> bool:
    """Whether :func:`find_fault` can tell more of a file than that it is missing or empty."""
    return os.path.splitext(path)[1].lower() in _SUFFIXES


def find_fault(path: str, backend: str = 'cv2', decode: bool = False) -> Fault | None:
    """Look whether an image can be read, without decoding it where its header and its end are right.

    Args:
        path (str): Local file.
        backend (str): What will decode it: ``'pillow'``, or OpenCV for any other name.
        decode (bool): Decode it in any case.

    Returns:
        Fault | None: ``None`` for a sound file, and for a full one of a format that is not known here.
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
    """Whether a header can be read, and a JPEG or PNG ends as it should."""
    try:
        with Image.open(file) as image:
            kind = image.format
    except Image.DecompressionBombError:  # so large that Pillow warns, which OpenCV may read
        return True
    except Exception:  # whatever Pillow's readers raise for bytes that they do not expect
        return False
    if kind == 'JPEG':
        file.seek(-2, os.SEEK_END)
        return file.read() == b'\xff\xd9' or _has_end_of_image(file)
    if kind == 'PNG':
        file.seek(-12, os.SEEK_END)
        return b'IEND' in file.read()
    return True


def _has_end_of_image(file: BinaryIO) -> bool:
    """Whether a JPEG has its end marker before other bytes, that of a thumbnail in its header not counted."""
    file.seek(0)
    content = file.read()
    position = 2
    while content[position : position + 1] == b'\xff' and content[position + 1 : position + 2] != b'\xda':
        position += 2 + int.from_bytes(content[position + 2 : position + 4], 'big')
    return content.find(b'\xff\xd9', position) >= 0


def _decoding_fault(content: bytes, backend: str) -> Fault | None:
    pillow, opencv = _pillow_fault(content), _opencv_fault(content)
    if pillow if backend == 'pillow' else opencv:
        return Fault(pillow or opencv)
    # OpenCV fills what is missing with grey.
    return Fault(pillow, readable=True) if pillow == _TRUNCATED else None


def _pillow_fault(content: bytes) -> str | None:
    try:
        with Image.open(io.BytesIO(content)) as image:
            image.load()
    except Image.DecompressionBombError:
        return None
    except UnidentifiedImageError:
        return f'it is no image, but begins with {content[:16]!r}'
    except Exception as error:  # whatever Pillow's readers raise for bytes that they do not expect
        return _TRUNCATED if 'truncated' in str(error).lower() else f'it is damaged: {error}'
    return None


def _opencv_fault(content: bytes) -> str | None:
    try:
        image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as error:
        return f'OpenCV cannot read it: {error.err}'
    return None if image is not None else 'OpenCV cannot read it'
