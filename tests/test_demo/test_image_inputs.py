"""`demo.image_inputs`: what is read, what is refused in a sentence, and that no drawing overwrites another."""

import http.server
import io
import os
import struct
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from demo import image_inputs as images
from demo.image_inputs import (
    ImageError,
    ImageSource,
    find_images,
    plan_outputs,
    prepare_folder,
    read_image,
    write_image,
)
from mmevm.errors import UsageError

pytestmark = pytest.mark.openmmlab


@pytest.fixture
def pixels() -> np.ndarray:
    """A smooth image (RGB), 30 high and 40 wide, that compression changes little."""
    y, x = np.mgrid[:30, :40]
    return np.stack([y * 8, x * 6, 255 - x * 6], -1).astype(np.uint8)


def jpeg(pixels: np.ndarray, **options: object) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, 'JPEG', quality=98, subsampling=0, **options)
    return stream.getvalue()


def turned() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright
    return exif


KINDS: dict[str, tuple[Callable[[Path, np.ndarray], object], Callable[[np.ndarray], np.ndarray]]] = {
    'grayscale.png': (lambda path, p: Image.fromarray(p[..., 0]).save(path), lambda p: p[..., [0, 0, 0]]),
    'rgba.png': (lambda path, p: Image.fromarray(np.dstack([p, p[..., 0]])).save(path), lambda p: p),
    'palette.png': (
        lambda path, p: Image.fromarray(p // 64 * 64).convert('P', palette=Image.Palette.ADAPTIVE).save(path),
        lambda p: p // 64 * 64,
    ),
    'sixteen.png': (lambda path, p: cv2.imwrite(str(path), p[..., ::-1].astype(np.uint16) * 256), lambda p: p),
    'cmyk.jpg': (lambda path, p: Image.fromarray(p).convert('CMYK').save(path, quality=98), lambda p: p),
    'turned.jpg': (lambda path, p: path.write_bytes(jpeg(p, exif=turned())), lambda p: np.rot90(p, 3)),
    'animation.gif': (
        lambda path, p: Image.fromarray(p).save(path, save_all=True, append_images=[Image.fromarray(255 - p)]),
        lambda p: p,
    ),
    'Straße im Grünen.png': (lambda path, p: Image.fromarray(p).save(path), lambda p: p),
    'by_pillow.tga': (lambda path, p: Image.fromarray(p).save(path), lambda p: p),
}


@pytest.mark.parametrize('name', KINDS)
def test_read_image_gives_colours_of_eight_bits(
    name: str, pixels: np.ndarray, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    save, expected = KINDS[name]
    save(tmp_path / name, pixels)
    image = read_image(str(tmp_path / name))
    assert image.dtype == np.uint8 and image.shape == expected(pixels).shape
    assert np.abs(image[..., ::-1].astype(int) - expected(pixels)).mean() < 4
    assert ('the first one is used' in capsys.readouterr().out) == (name == 'animation.gif')


def png(width: int, height: int) -> bytes:
    """A PNG file that says it has so many pixels; it has one."""
    small = cv2.imencode('.png', np.zeros((1, 1), np.uint8))[1].tobytes()
    header = b'IHDR' + struct.pack('>II', width, height) + small[24:29]
    return small[:12] + header + struct.pack('>I', zlib.crc32(header)) + small[33:]


@pytest.mark.parametrize(
    'name, content, sentence',
    [
        ('cut.jpg', lambda p: jpeg(p)[:-200], r'cut\.jpg is damaged or cut off: '),
        ('cut.png', lambda p: png(900, 900), r'cut\.png is damaged or cut off: '),
        ('head.jpg', lambda p: jpeg(p)[:30], r'No image can be read from .*head\.jpg: it is damaged, or in none of '),
        ('empty.png', lambda p: b'', 'the file is empty'),
        ('page.jpg', lambda p: b'<!DOCTYPE html>', 'it is a web page'),
        ('pointer.jpg', lambda p: b'version https://git-lfs.github.com/spec/v1\n', 'it is a Git LFS pointer'),
        ('film.mp4', lambda p: b'\0\0\0\x18ftypmp42', r'film\.mp4: it is a video; give single frames'),
        (
            'program.jpg',
            lambda p: b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EOF\n',
            'in none of the formats',
        ),
        ('line.png', lambda p: png(5000, 1), r'5000 × 1 pixels: one side is more than 1000 times the other'),
        ('bomb.png', lambda p: png(12000, 12000), r'12000 × 12000 pixels; up to 134217728 are read'),
        ('bomb2.png', lambda p: png(14000, 14000), 'more than the 134217728 pixels that are read'),
    ],
)
def test_read_image_names_what_cannot_be_read_and_why(
    name: str,
    content: Callable[[np.ndarray], bytes],
    sentence: str,
    pixels: np.ndarray,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / name).write_bytes(content(pixels))
    if 'bomb' in name:
        monkeypatch.setattr(cv2, 'imdecode', lambda *_: pytest.fail('decoded'))
    with pytest.raises(ImageError, match=sentence):
        read_image(str(tmp_path / name))


def test_read_image_waits_for_no_pipe_and_names_a_broken_link(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / 'pipe.png')
    (tmp_path / 'link.png').symlink_to('nowhere.png')
    with pytest.raises(ImageError, match=r'pipe\.png is no image file'):
        read_image(str(tmp_path / 'pipe.png'))
    with pytest.raises(ImageError, match=r'link\.png cannot be read: No such file'):
        read_image(str(tmp_path / 'link.png'))


def test_read_image_reads_no_file_beyond_the_bound(tmp_path: Path) -> None:
    with open(tmp_path / 'large.png', 'wb') as file:
        file.truncate(images.MAX_FILE + 1)
    with pytest.raises(ImageError, match='has 1073741825 bytes'):
        read_image(str(tmp_path / 'large.png'))


class _Site(http.server.BaseHTTPRequestHandler):
    image = b''

    def log_message(self, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        if self.path == '/none.jpg':
            return self.send_error(404)
        if self.path == '/moved.jpg':
            self.send_response(302)
            self.send_header('Location', '/a%20street.jpg')
            return self.end_headers()
        self.send_response(200)
        if self.path == '/short.jpg':
            self.send_header('Content-Length', str(len(self.image) + 9))
        self.end_headers()
        try:
            for _ in range(100 if self.path == '/slow.jpg' else 0):
                self.wfile.write(b' ')
                time.sleep(0.05)
            self.wfile.write(b' ' * 3_000_000 if self.path == '/large.jpg' else self.image)
        except OSError:
            pass  # the reader has had enough
        return None


@pytest.fixture
def site(pixels: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a server with images, and smaller bounds for what is downloaded."""
    monkeypatch.setattr(_Site, 'image', jpeg(pixels))
    monkeypatch.setattr(images, 'MAX_DOWNLOAD', 1_000_000)
    monkeypatch.setattr(images, 'DOWNLOAD_SECONDS', 1)
    monkeypatch.setenv('NO_PROXY', '127.0.0.1')
    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), _Site) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f'http://127.0.0.1:{server.server_port}'
        server.shutdown()


@pytest.mark.parametrize(
    'path, name',
    [
        ('/a street.jpg?size=2', 'a_street.jpg'),
        ('/a%20street.jpg', 'a_street.jpg'),
        ('/moved.jpg', 'moved.jpg'),
        ('', 'image'),
        ('/grün.jpg', 'grün.jpg'),
        ('/x/..%2F..%2Fup.jpg', 'up.jpg'),
    ],
)
def test_addresses_are_read_and_named(path: str, name: str, site: str, pixels: np.ndarray) -> None:
    (image,) = find_images([site + path])
    assert image == ImageSource(site + path, Path(name))
    assert np.abs(read_image(image.origin)[..., ::-1].astype(int) - pixels).mean() < 4


@pytest.mark.parametrize(
    'path, sentence',
    [
        ('/none.jpg', 'cannot be downloaded: the server answers 404 Not Found'),
        ('/short.jpg', 'broke off 9 bytes before its end'),
        ('/large.jpg', 'has more than 1000000 bytes'),
        ('/slow.jpg', 'was not there after 1 s'),
    ],
)
def test_addresses_that_give_no_image_are_named(path: str, sentence: str, site: str) -> None:
    with pytest.raises(ImageError, match=f'^{site}{path} {sentence}'):
        read_image(site + path)


def test_addresses_without_a_server_are_named() -> None:
    with pytest.raises(ImageError, match=r'^http://127\.0\.0\.1:9/x\.jpg cannot be downloaded: '):
        read_image('http://127.0.0.1:9/x.jpg')


@pytest.mark.parametrize('argument', ['ftp://host/x.jpg', 'file:///etc/passwd', 's3://bucket/x.jpg', 'http:///x.jpg'])
def test_other_addresses_are_refused(argument: str) -> None:
    with pytest.raises(UsageError, match=f'must start with http:// or https:// and a host, got {argument}'):
        find_images([argument])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Images of the same name, files that are none, and what file managers leave behind."""
    names = ['b.png', 'a.jpg', 'a.PNG', 'x/a.jpg', 'x/deep/c d.jpg', 'notes.txt', '.thumbs/a.jpg', '._a.jpg']
    for name in names:
        path = tmp_path / 'in' / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path / 'in'


def test_find_images_takes_the_images_of_a_folder_and_below(folder: Path) -> None:
    found = find_images([str(folder), str(folder / 'notes.txt')])
    names = ['a.PNG', 'a.jpg', 'b.png', 'x/a.jpg', 'x/deep/c d.jpg', 'notes.txt']
    assert [str(image.name) for image in found] == names
    assert [image.origin for image in found] == [str(folder / name) for name in names]


@pytest.mark.parametrize(
    'argument, sentence',
    [
        ('nowhere.jpg', 'Image not found: .*/nowhere.jpg is not there'),
        ('in/.thumbs/none', 'is not there'),
        ('x' * 300, 'is not there'),
        ('/dev/null', '/dev/null is neither an image file nor a folder'),
        ('none', 'none has no images'),
    ],
)
def test_find_images_names_what_is_not_there(
    argument: str, sentence: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder.parent)
    (folder.parent / 'none').mkdir()
    with pytest.raises(UsageError, match=sentence):
        find_images([argument])


def test_plan_outputs_gives_every_image_its_own_file(folder: Path) -> None:
    (folder / 'b_net.png').touch()
    found = find_images([str(folder), str(folder / 'x')])
    planned = [str(path.relative_to(folder)) for path in plan_outputs(found, folder, 'net')]
    assert planned == [
        # b.png is not drawn over the image b_net.png.
        'a.PNG_net.png',
        'a.jpg_net.png',
        'b_net_2.png',
        'b_net_net.png',
        'x/a_net.png',
        'x/deep/c d_net.png',
        'a.jpg_net_2.png',
        'deep/c d_net.png',
    ]


def test_plan_outputs_keeps_to_a_file_for_a_single_image(folder: Path) -> None:
    (image,) = find_images([str(folder / 'b.png')])
    assert plan_outputs([image], None, 'net') == [Path('outputs/b_net.png')]
    assert plan_outputs([image], Path('to/drawn.jpg'), 'net') == [Path('to/drawn.jpg')]
    assert plan_outputs([image], folder, 'net') == [folder / 'b_net.png']
    with pytest.raises(UsageError, match='--out must be a folder for 2 images'):
        plan_outputs([image, image], Path('drawn.png'), 'net')
    with pytest.raises(UsageError, match=r'--out must end with \.png'):
        plan_outputs([image], Path('drawn.xyz'), 'net')
    with pytest.raises(UsageError, match='--out is the image itself'):
        plan_outputs([image], folder / 'x/../b.png', 'net')


def test_write_image_and_prepare_folder_say_where_they_cannot_write(pixels: np.ndarray, tmp_path: Path) -> None:
    write_image(tmp_path / 'new/drawn.png', pixels)
    assert np.array_equal(cv2.imread(str(tmp_path / 'new/drawn.png')), pixels)
    (tmp_path / 'file').touch()
    with pytest.raises(UsageError, match='The folder .*/file/below cannot be written to: Not a directory'):
        prepare_folder(tmp_path / 'file/below')
    (tmp_path / 'new/folder.png').mkdir()
    with pytest.raises(UsageError, match=r'The drawing cannot be written to .*/folder\.png: .*Is a directory'):
        write_image(tmp_path / 'new/folder.png', pixels)
    assert sorted(path.name for path in (tmp_path / 'new').iterdir()) == ['drawn.png', 'folder.png']
