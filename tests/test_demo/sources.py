"""Small stand-ins for the packages that demos take their data from."""

import gzip
import hashlib
import io
import zipfile
from pathlib import Path
from struct import pack

import numpy as np
import pytest
from PIL import Image

from demo import fashion, trees

BOX = '<object><name>Tree</name><bndbox><xmin>3</xmin><ymin>4</ymin><xmax>23</xmax><ymax>14</ymax></bndbox></object>'


def write_wheel(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A wheel with small photographs, whose hash the requirement states."""
    wheel = folder / trees.WHEEL
    with zipfile.ZipFile(wheel, 'w') as archive:
        for index, name in enumerate(name for names in trees.PHOTOGRAPHS.values() for name in names):
            file = io.BytesIO()
            Image.effect_noise((96 + index, 64), 60).convert('RGB').save(file, 'PNG')
            archive.writestr(f'deepforest/data/{name}.png', file.getvalue())
            archive.writestr(f'deepforest/data/{name}.xml', f'<annotation>{BOX * (index + 1)}</annotation>')
    requirement = folder / 'requirement.txt'
    requirement.write_text(f'deepforest==1 --hash=sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}\n')
    monkeypatch.setattr(trees, 'REQUIREMENT', requirement)
    return wheel


def write_fashion(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The files of an installed Fashion-MNIST: eight training images, and four test images of the classes 0 to 3."""
    folder.mkdir()
    labels = {'train': [1, 1, 1, 1, 0, 2, 3, 4], 't10k': [0, 1, 2, 3]}
    files = {}
    for split, classes in labels.items():
        noise = np.random.default_rng(len(classes)).integers(0, 255, (len(classes), 28, 28), dtype=np.uint8)
        images = pack('>4i', 0x803, len(classes), 28, 28) + noise.tobytes()
        files[f'{split}-images-idx3-ubyte.gz'] = gzip.compress(images)
        files[f'{split}-labels-idx1-ubyte.gz'] = gzip.compress(pack('>2i', 0x801, len(classes)) + bytes(classes))
    for name, content in files.items():
        (folder / name).write_bytes(content)
    monkeypatch.setattr(fashion, 'INSTALLED', folder)
    monkeypatch.setattr(fashion, 'FILES', {name: hashlib.sha256(data).hexdigest() for name, data in files.items()})
