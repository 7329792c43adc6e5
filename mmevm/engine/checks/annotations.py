"""Class names in annotation files and folders, read as the datasets read them, but cheaply."""

import functools
import json
import mmap
import os
import re
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

#: Larger files are searched instead of parsed.
_PARSED_SIZE = 20 * 2**20
#: How many XML files are read, evenly spaced.
MAX_XML = 20_000
_CATEGORIES = re.compile(rb'"categories"\s*:\s*(?=\[)')
_CATEGORY_ID = re.compile(rb'"category_id"\s*:\s*(\d+)')


class AnnotationError(ValueError):
    """An annotation file that its dataset cannot read; the message is the reason, without the file's name."""


class Categories(NamedTuple):
    """Categories of a COCO file.

    Attributes:
        names (tuple[str]): In the file's order, in which mmdet numbers its classes.
        unused (tuple[str]): Names of those without any annotation.
        undefined (tuple[int]): Category ids of annotations that the file does not define.
    """

    names: tuple[str, ...]
    unused: tuple[str, ...]
    undefined: tuple[int, ...]


def read_categories(path: str) -> Categories:
    """Read the categories of a COCO file, without parsing the annotations of a large one.

    Raises:
        AnnotationError: The file is not JSON, is truncated, or has no categories.
    """
    stat = os.stat(path)
    return _read_categories(path, stat.st_size, stat.st_mtime_ns)


@functools.lru_cache(maxsize=16)
def _read_categories(path: str, size: int, _: int) -> Categories:
    categories, used = _parse(path) if size <= _PARSED_SIZE else _scan(path)
    if not isinstance(categories, list) or not categories:
        raise AnnotationError("it has no list 'categories'")
    if not all(isinstance(category, dict) and {'id', 'name'} <= category.keys() for category in categories):
        raise AnnotationError("its 'categories' are not dicts with 'id' and 'name'")
    defined = {category['id'] for category in categories}
    return Categories(
        names=tuple(str(category['name']) for category in categories),
        unused=tuple(str(category['name']) for category in categories if used and category['id'] not in used),
        undefined=tuple(sorted(used - defined, key=str)),
    )


def _load(path: str) -> Any:
    try:
        with open(path, encoding='utf-8') as file:
            return json.load(file)
    except ValueError as error:
        raise AnnotationError(f'it is not valid JSON: {error}') from error


def _parse(path: str) -> tuple[Any, set]:
    content = _load(path)
    if not isinstance(content, dict):
        raise AnnotationError(f'it holds a {type(content).__name__} where COCO files have an object')
    annotations = [item for item in content.get('annotations') or [] if isinstance(item, dict)]
    # Panoptic files have the ids in the segments of each image.
    items = [part for item in annotations for part in item.get('segments_info', [item])]
    return content.get('categories'), {item['category_id'] for item in items if 'category_id' in item}


def _scan(path: str) -> tuple[Any, set]:
    with open(path, 'rb') as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        if not content[-1024:].rstrip().endswith(b'}'):
            raise AnnotationError('it is truncated')
        starts = [match.end() for match in _CATEGORIES.finditer(content)]
        lists = (_decode_list(content, start) for start in starts)
        return next(filter(None, lists), None), {int(number) for number in set(_CATEGORY_ID.findall(content))}


def _decode_list(content: mmap.mmap, start: int) -> list | None:
    """Decode a JSON list of objects with names from an offset, if there is one."""
    length = 2**16
    while True:
        try:
            found, _ = json.JSONDecoder().raw_decode(content[start : start + length].decode('utf-8', 'ignore'))
        except ValueError:
            if start + length >= len(content):
                return None
            length *= 16
            continue
        return found if found and all(isinstance(item, dict) and 'name' in item for item in found) else None


def read_xml_names(paths: Sequence[str]) -> tuple[Counter, int, list[str]]:
    """Count the names of ``<object>`` in XML files of Pascal VOC's format.

    Returns:
        Counter[str]: Objects by name.
        int: Number of files read.
        list[str]: Files that are missing or not XML, each with the reason.
    """
    counts: Counter = Counter()
    faults = []
    chosen = paths[:: -(-len(paths) // MAX_XML) or 1]
    for path in chosen:
        try:
            root = ElementTree.parse(path).getroot()
        except (OSError, ElementTree.ParseError) as error:
            faults.append(f'{path}: {error.strerror if isinstance(error, OSError) else f"not valid XML, {error}"}')
            continue
        counts.update(item.findtext('name', default='') for item in root.findall('object'))
    return counts, len(chosen), faults


def list_class_folders(path: str) -> tuple[str, ...]:
    """Return the folders that MMPretrain takes for classes, in the order of their ids."""
    return tuple(sorted(entry.name for entry in os.scandir(path) if entry.is_dir()))


class LabelledLine(NamedTuple):
    """A line of an annotation list and the class id at its end."""

    label: int
    number: int
    text: str


def read_label_range(path: str) -> tuple[LabelledLine, LabelledLine] | None:
    """Read a text file of MMPretrain's format: one file per line and, after the last space, its class id.

    Returns:
        tuple[LabelledLine, LabelledLine] | None: The lines with the lowest and the highest id; ``None`` without lines.

    Raises:
        AnnotationError: A line has no class id.
    """
    found: dict[int, LabelledLine] = {}
    with open(path, encoding='utf-8') as file:
        for number, line in enumerate(file, 1):
            text, _, end = line.strip().rpartition(' ')
            try:
                found.setdefault(int(end), LabelledLine(int(end), number, text))
            except ValueError as error:
                raise AnnotationError(
                    f'line {number} is {line.strip()!r}, where a file, a space and a class id (a number) are expected'
                ) from error
    return (found[min(found)], found[max(found)]) if found else None


def read_data_list(path: str) -> tuple[Sequence[str] | None, Iterable[dict]]:
    """Read the class names and the samples of a JSON file of MMEngine's format, ``{metainfo, data_list}``.

    Raises:
        AnnotationError: It has another format.
    """
    content = _load(path)
    if not isinstance(content, dict) or not {'metainfo', 'data_list'} <= content.keys():
        raise AnnotationError("it has no 'metainfo' and 'data_list'")
    metainfo = content['metainfo']
    names = metainfo.get('classes')
    if names is None and 'categories' in metainfo:
        names = [item.get('category_name') for item in sorted(metainfo['categories'], key=lambda item: item['id'])]
    return names, content['data_list']
