"""`mmevm.engine.checks.image_files`: which files can be read, and what is wrong with the others."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from mmevm.engine.checks.image_files import Fault, find_fault


def encoded(kind: str = 'JPEG', size: int = 64, **options: Any) -> bytes:
    """An image that is not uniform, so that it has rows to lose."""
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (size, size, 3), np.uint8))
    ImageDraw.Draw(image).ellipse((4, 4, 40, 40), fill='red')
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


class TestFindFault:
    @pytest.mark.parametrize(
        ('name', 'content'),
        [
            ('a.jpg', encoded()),
            ('a.JPEG', encoded(progressive=True)),
            ('a.png', encoded('PNG')),
            ('a.bmp', encoded('BMP')),
            ('a.webp', encoded('WEBP')),
            ('padded.jpg', encoded() + bytes(5000)),
            ('a.jpg', encoded('PNG')),
            ('a.npy', b'anything'),
            ('noise.tif', b'anything'),
        ],
    )
    def test_sound_files_have_none(self, tmp_path: Path, name: str, content: bytes) -> None:
        (tmp_path / name).write_bytes(content)
        assert find_fault(str(tmp_path / name)) is None
        assert find_fault(str(tmp_path / name), decode=True) is None

    @pytest.mark.parametrize(
        ('name', 'content', 'reason'),
        [
            ('a.jpg', b'', 'it is empty (0 bytes)'),
            ('a.npy', b'', 'it is empty (0 bytes)'),
            ('a.jpg', b'<html>not found</html>', "it is not an image, but starts with b'<html>not found<'"),
            ('a.png', b'version https://git-lfs.github.com', "it is not an image, but starts with b'version https://'"),
            ('a.jpg', encoded()[:300], 'it is truncated'),
            ('a.png', encoded('PNG')[:3000], 'it is truncated'),
            ('a.jpg', encoded()[:1], "it is not an image, but starts with b'\\xff'"),
        ],
    )
    def test_broken_files_have_one(self, tmp_path: Path, name: str, content: bytes, reason: str) -> None:
        (tmp_path / name).write_bytes(content)
        assert find_fault(str(tmp_path / name), 'pillow') == Fault(reason)
        assert not find_fault(str(tmp_path / name)).readable

    def test_files_that_are_absent_or_folders(self, tmp_path: Path) -> None:
        assert find_fault(str(tmp_path / 'a.jpg')) == Fault('no such file or directory')
        (tmp_path / 'b.jpg').mkdir()
        assert find_fault(str(tmp_path / 'b.jpg')) == Fault('is a directory')

    def test_a_truncated_picture_is_seen_by_its_end_with_a_thumbnail_inside(self, tmp_path: Path) -> None:
        exif = Image.Exif()
        whole = encoded(exif=exif.tobytes() + encoded(size=16))
        (tmp_path / 'a.jpg').write_bytes(whole)
        assert find_fault(str(tmp_path / 'a.jpg')) is None
        (tmp_path / 'a.jpg').write_bytes(whole[:-200])
        assert find_fault(str(tmp_path / 'a.jpg')).reason == 'it is truncated'

    def test_damage_inside_is_seen_by_decoding(self, tmp_path: Path) -> None:
        content = bytearray(encoded('PNG'))
        content[1000:1400] = bytes(400)
        (tmp_path / 'a.png').write_bytes(content)
        assert find_fault(str(tmp_path / 'a.png')) is None
        assert find_fault(str(tmp_path / 'a.png'), decode=True) is not None

    @pytest.mark.parametrize('name', ['a.bmp', 'a.gif', 'a.ppm', 'a.webp', 'a.avif', 'a.jp2', 'a.jpg'])
    def test_a_picture_without_its_end_is_no_picture(self, tmp_path: Path, name: str) -> None:
        kinds = {'jpg': 'BMP', 'jp2': 'JPEG2000'}
        content = encoded(kinds.get(name[2:], name[2:].upper()))
        (tmp_path / name).write_bytes(content)
        assert find_fault(str(tmp_path / name)) is None
        (tmp_path / name).write_bytes(content[: len(content) // 2])
        assert find_fault(str(tmp_path / name)) and find_fault(str(tmp_path / name), 'pillow')

    @pytest.mark.parametrize('name', ['a.tga', 'a.pcx', 'a.ico', 'a.jpg'])
    def test_the_decoder_that_will_read_it_decides(self, tmp_path: Path, name: str) -> None:
        (tmp_path / name).write_bytes(encoded({'jpg': 'TGA'}.get(name[2:], name[2:].upper())))
        assert find_fault(str(tmp_path / name)) == Fault('OpenCV cannot read it')
        assert find_fault(str(tmp_path / name), 'pillow') is None
