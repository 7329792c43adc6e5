"""Input images of a tool (files, folders and addresses, read within bounds), and the files for their drawings."""

import io
import os
import re
import string
import time
import urllib.request
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import quote, unquote, urlsplit

import cv2
import numpy as np
from PIL import Image, ImageOps

from mmevm.errors import UsageError
from mmevm.files import replacing

SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.ppm', '.pgm', '.tif', '.tiff', '.webp', '.gif', '.avif', '.jp2')
"""Files of a folder that are taken for images."""

MAX_PIXELS = 2**27
MAX_ASPECT = 1000
MAX_FILE = 2**30
MAX_DOWNLOAD = 2**26
DOWNLOAD_SECONDS = 60

_VIDEOS = ('.mp4', '.m4v', '.avi', '.mov', '.mkv', '.webm', '.flv', '.wmv', '.mpg', '.mpeg')
# Pillow supports more, some of which start other programs (EPS).
_FORMATS = ('JPEG', 'PNG', 'BMP', 'PPM', 'TIFF', 'WEBP', 'GIF', 'AVIF', 'JPEG2000', 'TGA', 'ICO')


class ImageError(UsageError):
    """An image that cannot be used; the message names it and the reason."""


@dataclass(frozen=True)
class ImageSource:
    """An image to be read.

    Attributes:
        origin (str): Its path or address.
        name (Path): File name; for files below a folder, the path relative to it.
    """

    origin: str
    name: Path


def _is_address(argument: str) -> bool:
    return re.match(r'[A-Za-z][\w+.-]*://', argument) is not None


def find_images(arguments: Sequence[str]) -> list[ImageSource]:
    """Expand the arguments of a command line; nothing is opened.

    Args:
        arguments (Sequence[str]): Files, folders, of which all images are taken, and http(s) addresses.

    Returns:
        list[ImageSource]: At least one.

    Raises:
        UsageError: If an argument is none of these, or a folder has no images.
    """
    return [image for argument in arguments for image in _expand(argument)]


def _expand(argument: str) -> list[ImageSource]:
    if _is_address(argument):
        return [ImageSource(argument, Path(_address_name(argument)))]
    path = Path(os.path.expanduser(argument))
    if os.path.isdir(path):
        images = [ImageSource(str(file), file.relative_to(path)) for file in _walk(path)]
        if not images:
            raise UsageError(f'{path.absolute()} has no images (files that end with {", ".join(SUFFIXES)})')
        return images
    if not os.path.isfile(path):
        kind = 'neither an image file nor a folder' if os.path.exists(path) else 'not there'
        raise UsageError(f'Image not found: {path.absolute()} is {kind}')
    return [ImageSource(str(path), Path(path.name))]


def _address_name(address: str) -> str:
    """Return the file name at the end of an address, with safe characters only."""
    try:
        scheme, host, path, *_ = urlsplit(address)
    except ValueError as error:
        raise UsageError(f'{address} is no address: {error}') from error
    if scheme not in ('http', 'https') or not host:
        raise UsageError(f'An address must start with http:// or https:// and a host, got {address}')
    return re.sub(r'[^\w.-]', '_', Path(unquote(path)).name) or 'image'


def _walk(folder: Path) -> Iterator[Path]:
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith('.'))
        for name in sorted(files):
            if name.lower().endswith(SUFFIXES) and not name.startswith('.'):
                yield Path(parent, name)


def read_image(origin: str) -> np.ndarray:
    """Read an image as OpenMMLab's pipelines do: in colour, rotated by its EXIF orientation, without transparency.

    Args:
        origin (str): A path, or an http(s) address.

    Returns:
        np.ndarray: Blue, green and red, uint8 [H, W, 3]; of an animation the first frame.

    Raises:
        ImageError: If it cannot be read or downloaded, is no image or a damaged one, or is beyond the bounds.
    """
    data = _download(origin) if _is_address(origin) else _read(origin)
    _check_header(data, origin)
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:
        image = None
    return _decode_by_pillow(data, origin) if image is None else image


def _read(path: str) -> bytes:
    try:
        size = os.path.getsize(path)
        if not os.path.isfile(path):  # reading a pipe would block
            raise ImageError(f'{path} is no image file')
        if size > MAX_FILE:
            raise ImageError(f'{path} has {size} bytes; images of up to {MAX_FILE} are read')
        return Path(path).read_bytes()
    except OSError as error:
        raise ImageError(f'{path} cannot be read: {error.strerror}') from error


def _download(address: str) -> bytes:
    """Download the bytes behind an address, no more than :data:`MAX_DOWNLOAD`, in about :data:`DOWNLOAD_SECONDS`."""
    data, end = bytearray(), time.monotonic() + DOWNLOAD_SECONDS
    try:
        # Spaces and letters beyond ASCII are encoded; what is encoded already stays.
        request = urllib.request.Request(quote(address, safe=string.punctuation), headers={'User-Agent': 'mmevm'})
        with urllib.request.urlopen(request, timeout=DOWNLOAD_SECONDS / 2) as response:
            while block := response.read1(1 << 16):
                data += block
                if len(data) > MAX_DOWNLOAD:
                    raise ImageError(f'{address} has more than {MAX_DOWNLOAD} bytes: download it and give the file')
                if time.monotonic() > end:
                    raise ImageError(
                        f'{address} was not there after {DOWNLOAD_SECONDS} s: download it and give the file'
                    )
            if response.length:
                raise ImageError(f'{address} broke off {response.length} bytes before its end; try again')
    except (OSError, HTTPException, ValueError) as error:
        status = f'the server answers {error.code} ' if isinstance(error, HTTPError) else ''
        reason = str(getattr(error, 'reason', error)).strip() or type(error).__name__
        raise ImageError(f'{address} cannot be downloaded: {status}{reason.splitlines()[0]}') from error
    return bytes(data)


def _open(data: bytes) -> Image.Image:
    Image.init()
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', Image.DecompressionBombWarning)
        return Image.open(io.BytesIO(data), formats=[name for name in _FORMATS if name in Image.OPEN])


def _check_header(data: bytes, origin: str) -> None:
    """Reject files that are no images, and sizes that are too large, from the header only."""
    try:
        header = _open(data)
        animated = header.format != 'MPO' and getattr(header, 'is_animated', False)
    except Image.DecompressionBombError:
        raise ImageError(f'{origin} has more than the {MAX_PIXELS} pixels that are read; give a smaller copy') from None
    except Exception as error:  # a damaged header can raise any
        raise ImageError(f'No image can be read from {origin}: {_cause(data, origin)}') from error
    width, height = header.size
    if width * height > MAX_PIXELS:
        raise ImageError(f'{origin} has {width} × {height} pixels; up to {MAX_PIXELS} are read: give a smaller copy')
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise ImageError(
            f'{origin} has {width} × {height} pixels: one side is more than {MAX_ASPECT} times the other, '
            'of which nothing would be left at the size that models take; give a part of the image'
        )
    if animated:
        print(f'{origin} has several frames; the first one is used')


def _cause(data: bytes, origin: str) -> str:
    if not data:
        return 'the file is empty'
    if (urlsplit(origin).path if _is_address(origin) else origin).lower().endswith(_VIDEOS):
        return 'it is a video; give single frames of it as images'
    if data.lstrip()[:1] == b'<':
        return 'it is a web page or another text'
    if data.startswith(b'version https://git-lfs'):
        return 'it is a Git LFS pointer; fetch the file itself with `git lfs pull`'
    return f'it is damaged, or in none of the formats {", ".join(_FORMATS)}'


def _decode_by_pillow(data: bytes, origin: str) -> np.ndarray:
    """Decode formats that OpenCV's build may lack; explain what is wrong with damaged files."""
    try:
        image = _open(data)
        image.load()
    except Exception as error:  # as above
        raise ImageError(f'{origin} is damaged or cut off: {error}') from error
    if image.mode[0] in 'IF':
        raise ImageError(f'{origin} has pixels of more than 8 bits ({image.mode}) that cannot be read as colours')
    return np.asarray(ImageOps.exif_transpose(image).convert('RGB'))[..., ::-1]


def plan_outputs(images: Sequence[ImageSource], out: Path | None, label: str) -> list[Path]:
    """Choose a file for the drawing of each image, no two the same and none an input image.

    Args:
        images (Sequence[ImageSource]): What is drawn.
        out (Path, optional): A file for a single image, otherwise a folder; by default ``outputs``.
        label (str): Ends the names of files in a folder.

    Returns:
        list[Path]: One file for each image.

    Raises:
        UsageError: If ``out`` is a file for several images, has a suffix that cannot be written, or is an input image.
    """
    taken = {_key(Path(image.origin)) for image in images}
    if out is not None and out.suffix and not out.is_dir():
        if len(images) > 1:
            raise UsageError(f'--out must be a folder for {len(images)} images, got {out}')
        if not cv2.haveImageWriter(out.name):
            raise UsageError(f'--out must end with .png, .jpg or the like, or name a folder, got {out}')
        if _key(out) in taken:
            raise UsageError(f'--out is the image itself, {out}; name another file')
        return [out]
    folder = out or Path('outputs')
    stems = Counter(_key(folder / image.name.with_suffix('')) for image in images)
    targets = []
    for image in images:
        # Images that only differ in their suffixes keep these.
        name = image.name.stem if stems[_key(folder / image.name.with_suffix(''))] == 1 else image.name.name
        target, number = folder / image.name.with_name(f'{name}_{label}.png'), 1
        while _key(target) in taken:
            number += 1
            target = target.with_name(f'{name}_{label}_{number}.png')
        taken.add(_key(target))
        targets.append(target)
    return targets


def _key(path: Path) -> str:
    return os.path.realpath(path).casefold()


def prepare_folder(folder: Path) -> None:
    """Make a folder and check that it is writable.

    Raises:
        UsageError: If it is not.
    """
    probe = folder / f'.{os.getpid()}.probe'
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UsageError(f'The folder {folder.absolute()} cannot be written to: {error.strerror}') from error


def write_image(path: Path, image: np.ndarray) -> None:
    """Write an image under a temporary name and rename it, so that an error leaves no partial file.

    Args:
        path (Path): Its suffix chooses the format.
        image (np.ndarray): Blue, green and red, uint8 [H, W, 3].

    Raises:
        UsageError: If it cannot be written.
    """
    try:
        done, data = cv2.imencode(path.suffix, image)
        if not done:
            raise OSError(f'{image.shape[1]} × {image.shape[0]} pixels are too many for {path.suffix}')
        with replacing(path) as draft:
            draft.write_bytes(data)
    except (OSError, cv2.error) as error:
        raise UsageError(f'The drawing cannot be written to {path.absolute()}: {error}') from error
