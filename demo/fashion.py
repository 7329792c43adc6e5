"""Fashion-MNIST: Debian's package dataset-fashion-mnist (MIT), unpacked for mmpretrain's dataset of that name."""

import gzip
import hashlib
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from demo.mini_data.make import is_current, make_folder

PACKAGE = 'dataset-fashion-mnist'
INSTALLED = Path('/usr/share/datasets/fashion-mnist')
#: SHA-256 by file.
FILES = {
    't10k-images-idx3-ubyte.gz': 'cc1d090a38ace84dfa1aa66e3ada7c336ef481a96936906477e6dd344da56eaa',
    't10k-labels-idx1-ubyte.gz': '8d3605d196f4be44669e46906da9733c8131fef761fdbfec72c424d5222f1a05',
    'train-images-idx3-ubyte.gz': 'b0564c3eedabfbf835052cff8503ea422014ce006caf5b757f851416ee8300c7',
    'train-labels-idx1-ubyte.gz': '0ae29f65d86684f32d1b9c85147786c547b9c6aebcaf235f0400a0cce308b056',
}


@contextmanager
def package_files() -> Iterator[Path]:
    """Yield the folder of the package's files: where it is installed, else a temporary one.

    Raises:
        SystemExit: If the package is neither installed nor can be downloaded.
    """
    if INSTALLED.is_dir():
        yield INSTALLED
        return
    with tempfile.TemporaryDirectory() as folder:
        print(f'Downloading {PACKAGE} (31 MB)', flush=True)
        try:
            subprocess.run(['apt-get', 'download', '-q', PACKAGE], cwd=folder, check=True)
            subprocess.run(
                ['dpkg-deb', '-x', *(file.name for file in Path(folder).glob('*.deb')), '.'], cwd=folder, check=True
            )
        except (OSError, subprocess.CalledProcessError) as error:
            raise SystemExit(
                f'The demo needs the files of the Debian package {PACKAGE} and could not download it: {error}. Install '
                f'it (apt-get install {PACKAGE}), or put {", ".join(FILES)} into {INSTALLED}.'
            ) from error
        yield Path(folder) / INSTALLED.relative_to('/')


def _unpack(source: Path, root: Path) -> None:
    for name, digest in FILES.items():
        packed = (source / name).read_bytes()
        if (found := hashlib.sha256(packed).hexdigest()) != digest:
            raise SystemExit(f'{source / name} is not that of {PACKAGE}: expected SHA-256 {digest}, got {found}.')
        (root / name.removesuffix('.gz')).write_bytes(gzip.decompress(packed))


def make_fashion(folder: Path) -> bool:
    """Unpack the dataset, unless it is there.

    Args:
        folder (Path): The ``data_root``.

    Returns:
        bool: False where it was there already.

    Raises:
        SystemExit: If the files cannot be had, or are others.
        FileExistsError: If the folder holds files that this function did not write.
    """
    if is_current(folder, dict(source=PACKAGE)):
        return False
    with package_files() as source:
        make_folder(folder, dict(source=PACKAGE), lambda root: _unpack(source, root))
    return True


def read_images(folder: Path, split: str = 't10k') -> np.ndarray:
    """Return the images of a split.

    Args:
        folder (Path): The ``data_root``.
        split (str): ``'t10k'`` or ``'train'``.

    Returns:
        ndarray[N, 28, 28]: uint8.
    """
    return np.frombuffer((folder / f'{split}-images-idx3-ubyte').read_bytes(), np.uint8, offset=16).reshape(-1, 28, 28)


def read_labels(folder: Path, split: str = 't10k') -> np.ndarray:
    """Return the classes of a split's images, uint8 ndarray[N]; see :func:`read_images`."""
    return np.frombuffer((folder / f'{split}-labels-idx1-ubyte').read_bytes(), np.uint8, offset=8)
