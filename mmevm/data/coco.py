"""Datasets in COCO's format: JSON files in ``annotations`` or beside the images."""

import json
import os
import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mmevm.data.coco_images import image_folder, image_paths, lead_to
from mmevm.data.images import report_unlisted
from mmevm.data.records import (
    Findings,
    Sample,
    Split,
    Thing,
    UserData,
    files,
    is_image,
    plain_name,
    repeated,
    split_of,
    subfolders,
)
from mmevm.data.shapes import Box, is_number, is_set, is_shape, shape_box
from mmevm.engine.checks.class_lists import hint
from mmevm.errors import UsageError

_OTHER_TASKS = re.compile(r'captions|keypoints|panoptic|stuff|image_info|unlabeled')
_IDS = {'images': ('id',), 'annotations': ('image_id', 'category_id'), 'categories': ('id',)}


def find_files(root: Path) -> list[Path]:
    """Return the COCO files of a folder: in it, in ``annotations`` and in the splits' folders."""
    folders = [root, *subfolders(root)]
    folders += [inner for folder in folders[1:] for inner in subfolders(folder) if inner.name == 'annotations']
    return [path for folder in folders for path in files(folder) if path.suffix == '.json' and _looks_like_coco(path)]


def _looks_like_coco(path: Path) -> bool:
    """Return whether a file names what COCO files have, without parsing it."""
    with open(path, 'rb') as file:
        found: set[bytes] = set()
        tail = b''
        while block := file.read(1 << 22):
            found |= set(re.findall(rb'"(images|annotations|categories)"\s*:\s*\[', tail + block))
            if {b'images', b'categories'} <= found:
                return True
            tail = block[-64:]
    return {b'images', b'annotations'} <= found


def read(path: Path) -> UserData | None:
    """Read a COCO file, or the files of a folder; ``None`` if the folder has none."""
    if path.is_file():
        root = path.parent.parent if path.parent.name == 'annotations' else path.parent
        chosen = {'': path}
    else:
        root = path.parent if path.name == 'annotations' else path
        found = find_files(path)
        chosen = _by_split(root, found)
    if not chosen:
        return None
    data = _read_files(root, chosen)
    if path.is_dir() and '' not in chosen:
        _report_undivided(data, [file for file in found if file not in chosen.values()])
    if path.is_dir():  # beside a file that was given, others may list the rest
        _report_unlisted(data)
    data.file = chosen.get('')  # given or found, there may be others beside it
    return data


def _by_split(root: Path, found: list[Path]) -> dict[str, Path]:
    """Choose one file for each split; the key of a list that says both is ''."""
    groups: dict[str, list[Path]] = defaultdict(list)
    for file in found:
        inside = file.relative_to(root)
        groups[split_of(file.stem) or split_of(inside.parent.name) or ''].append(file)
    if len(groups) > 1:
        groups.pop('', None)  # a list of everything beside lists of its parts
    return {split: _chosen(files) for split, files in groups.items()}


def _chosen(found: list[Path]) -> Path:
    objects = [file for file in found if 'instances' in file.name] or [
        file for file in found if not _OTHER_TASKS.search(file.name)
    ]
    return (objects or found)[0] if len(objects or found) == 1 else _ambiguous(objects or found)


def _ambiguous(found: list[Path]) -> Path:
    names = ', '.join(map(str, found))
    raise UsageError(f'Several COCO files may be meant: {names}. Give one of them, or name them after their splits.')


def _read_files(root: Path, chosen: dict[str, Path]) -> UserData:
    findings = Findings()
    loaded = {split: _load(file, findings) for split, file in chosen.items()}
    contents = {split: content for split, content in loaded.items() if content is not None}
    first = contents.get('train') or next(iter(contents.values()), {})
    classes = _class_names(first, list(contents.values()))
    folders = _folders(root)
    splits = {split: Split([]) for split in chosen}
    for split, content in contents.items():
        file = chosen[split]
        indices = _indices(file, content, classes, findings)
        name, images = split or split_of(file.stem) or '', content['images']
        prefix = image_folder(name, file, images, folders, findings)
        paths = image_paths(name, file, root, prefix, images, findings)
        splits[split] = _read_split(file, content, paths, indices, findings)
        is_original = content['original_names'] == classes
        if is_original and _is_pristine(content, splits[split], prefix):
            splits[split].annotations, splits[split].prefix = str(file), prefix
    return UserData('detection', 'COCO', root, classes, splits, findings)


def _report_undivided(data: UserData, lists: list[Path]) -> None:
    """Note images of lists without a split that no split's list has."""
    known = {os.path.basename(sample.path) for sample in data.samples()}
    for file in lists:
        content = None if _OTHER_TASKS.search(file.name) or split_of(file.stem) else _load(file, Findings())
        names = {
            os.path.basename(plain_name(str(image.get('file_name')))) for image in (content or {}).get('images', [])
        }
        if extra := sorted(names - known):
            data.findings.note(f'Images of {file} that are in no split, and are not used:', *extra)


def _report_unlisted(data: UserData) -> None:
    """Note images that no file lists, in the folders of those that are listed."""
    listed = [os.path.normpath(sample.path) for sample in data.samples()]
    folders = [Path(folder) for folder in {os.path.dirname(path) for path in listed} if os.path.isdir(folder)]
    present = [str(file) for folder in folders for file in files(folder) if is_image(file)]
    report_unlisted(data.findings, listed, present, f'the COCO annotation of {data.root}')


def _load(file: Path, findings: Findings) -> dict[str, Any] | None:
    try:
        text = file.read_bytes()
        content = json.loads(text)
    except ValueError as error:
        findings.problem('Annotation files that cannot be read:', f'{file}: not valid JSON, {error}')
        return None
    for key in ('images', 'annotations', 'categories'):
        items = content.get(key, [] if key == 'annotations' else None) if isinstance(content, dict) else None
        if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
            findings.problem('Annotation files that cannot be read:', f"{file}: it has no list of objects '{key}'")
            return None
        content[key] = items
    faulty = [c for c in content['categories'] if 'id' not in c or not str(c.get('name') or '').strip()]
    if faulty or not content['categories']:
        findings.problem('Annotation files that cannot be read:', f"{file}: 'categories' need 'id' and 'name'")
        return None
    for key, names in _IDS.items():
        for item in content[key]:
            for name in names:
                if isinstance(item.get(name), list | dict):
                    findings.problem('Ids that are no numbers:', f"{file}: {name!r} in '{key}' is {item[name]!r}")
                    return None
    content['encoding'] = json.detect_encoding(text)
    content['original_names'] = [category['name'] for category in content['categories']]
    for category in content['categories']:
        category['name'] = str(category['name']).strip()
    return content


def _class_names(first: dict[str, Any], contents: Iterable[dict[str, Any]]) -> list[str]:
    """Return the categories' names in the file's order, without Roboflow's group that is no class of any object."""
    categories = first.get('categories', [])
    used = {item.get('category_id') for content in contents for item in content['annotations']}
    groups = {category.get('supercategory') for category in categories}
    kept = [item for item in categories if item['id'] in used or item['name'] not in groups or not _is_group(item)]
    return list(dict.fromkeys(category['name'] for category in kept or categories))


def _is_group(category: dict[str, Any]) -> bool:
    return category['id'] == 0 and category.get('supercategory') in (None, '', 'none')


def _indices(file: Path, content: dict[str, Any], classes: list[str], findings: Findings) -> dict[Any, int]:
    """Return the class of every category id, and report names that are no class."""
    categories = content['categories']
    for number in repeated(category['id'] for category in categories):
        findings.problem('Category ids that are defined twice:', f'{file}: {number}')
    used = {item.get('category_id') for item in content['annotations']}
    for name in repeated(item['name'] for item in categories if item['id'] in used or not _is_group(item)):
        findings.problem('Categories with the same name:', f'{file}: {name!r}')
    for category in categories:
        if category['name'] not in classes and category['id'] in used:
            findings.problem(
                'Names that match no category of the training split:',
                f'{file}: {category["name"]!r}{hint(category["name"], classes, "train")}',
            )
    return {item['id']: classes.index(item['name']) for item in categories if item['name'] in classes}


def _folders(root: Path) -> list[Path]:
    inner = subfolders(root)
    return [root, *inner, *(folder for parent in inner for folder in subfolders(parent))]


def _read_split(
    file: Path, content: dict[str, Any], paths: dict[str, str], indices: dict[Any, int], findings: Findings
) -> Split:
    samples: dict[Any, Sample] = {}
    for number in repeated(image.get('id') for image in content['images']):
        names = [str(image.get('file_name')) for image in content['images'] if image.get('id') == number]
        findings.problem('Image ids that occur more than once:', f'{file}: {number} of {", ".join(names)}')
    for image in content['images']:
        if not isinstance(image.get('file_name'), str) or 'id' not in image:
            findings.problem("Images without 'id' or 'file_name':", f'{file}: {image}')
            continue
        size = image.get('width'), image.get('height')
        stated = (int(size[0]), int(size[1])) if all(map(is_number, size)) else None
        number = image['id'] if isinstance(image['id'], int) else None
        samples[image['id']] = Sample(paths[image['file_name']], stated=stated, source=str(file), number=number)
    for item in content['annotations']:
        _add_thing(file, item, samples, indices, content, findings)
    return Split(list(samples.values()))


def _add_thing(
    file: Path,
    item: dict[str, Any],
    samples: dict[Any, Sample],
    indices: dict[Any, int],
    content: dict[str, Any],
    findings: Findings,
) -> None:
    source = f'{file}, annotation {item.get("id")}'
    sample = samples.get(item.get('image_id'))
    if sample is None:
        findings.problem('Annotations of images that are not listed:', f'{source}: image_id {item.get("image_id")!r}')
        return
    source += f' of {os.path.basename(sample.path)}'
    if item.get('category_id') not in indices:
        if all(category['id'] != item.get('category_id') for category in content['categories']):
            heading = "Category ids that the file's 'categories' do not define:"
            findings.problem(heading, f'{source}: {item.get("category_id")!r}')
        return
    box, shape = _box(item), item.get('segmentation') or None
    if box is None and item.get('bbox') in (None, []) and is_shape(shape):
        findings.fault('Objects without a box, and with a shape that covers nothing:', source)
        return
    if box is None:
        findings.problem('Boxes that are not four numbers:', f'{source}: {item.get("bbox")}')
        return
    is_crowd = is_set(item.get('iscrowd')) or is_set(item.get('ignore'))
    sample.things.append(Thing(indices[item['category_id']], box, shape, is_crowd, source))


def _box(item: dict[str, Any]) -> Box | None:
    box = item.get('bbox')
    if box is None or box == []:
        return shape_box(item.get('segmentation'))
    if not isinstance(box, list) or len(box) != 4:
        return None
    return (box[0], box[1], box[2], box[3]) if all(map(is_number, box)) else None


def _is_id(value: Any, least: int = 0) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _is_pristine(content: dict[str, Any], split: Split, prefix: str) -> bool:
    """Return whether MMDetection and pycocotools can read a file as it is, and make nothing else of it."""
    images, items = content['images'], content['annotations']
    if content['encoding'] != 'utf-8':  # they know neither UTF-16 nor a byte order mark
        return False
    if len(split.samples) != len(images) or len({str(item.get('id')) for item in items}) != len(items):
        return False
    return all(
        _is_id(image['id'])
        and all(is_number(image.get(edge)) and image[edge] > 0 for edge in ('width', 'height'))
        and sample.path == lead_to(prefix, image['file_name'])
        and '\\' not in image['file_name']
        for image, sample in zip(images, split.samples, strict=True)
    ) and all(map(_is_pristine_object, items))


def _is_pristine_object(item: dict[str, Any]) -> bool:
    # pycocotools takes an object with the id 0 for one that was not found, and MMDetection passes over an area of 0.
    # MMDetection passes over objects with `ignore`, too, while pycocotools expects a detector to find them.
    return (
        _is_id(item.get('id'), least=1)
        and isinstance(item.get('bbox'), list)
        and all(map(is_number, item['bbox']))
        and is_number(item.get('area'))
        and item['area'] > 0
        and item.get('iscrowd') in (0, 1)
        and not item.get('ignore')
        and 'category_id' in item
    )
