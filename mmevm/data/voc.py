"""Datasets in Pascal VOC's format: an XML file for each image, and lists of names in ``ImageSets/Main``."""

import os
import xml.etree.ElementTree as ElementTree
from collections.abc import Collection
from pathlib import Path

import numpy as np

from mmevm.data.images import measure, report_shared, report_unlisted
from mmevm.data.lists import note_unused_lists, split_lists
from mmevm.data.records import (
    Findings,
    Sample,
    Split,
    Thing,
    UserData,
    files,
    images_below,
    is_image,
    plain_name,
    repeated,
    split_of,
    subfolders,
    text_lines,
)
from mmevm.data.supervision import formats
from mmevm.engine.checks.class_lists import same_but_for_case
from mmevm.errors import UsageError

_ANNOTATIONS = ('annotations', 'xml', 'labels')
_UNREADABLE = 'Annotation files that cannot be read:'
_SEVERAL = 'Several XML files for one image; keep one of them:'


def read(path: Path) -> UserData | None:
    """Read a folder with XML files; ``None`` for a folder of another layout."""
    if path.is_file():
        return None
    findings = Findings()
    splits = _splits(path, findings)
    roots = {name: _parse(entries, findings) for name, entries in splits.items()}
    if not any(splits.values()) and not findings.problems:
        return None
    if len(splits) > 1 and (beside := splits.pop('', None)):
        findings.note('Images outside of the folders of splits, left out:', *beside)
        del roots['']
    names = _names(list(roots.values()), findings)
    parts = {
        split: Split([Sample(image, source=str(xml)) for image, xml in part.items()]) for split, part in splits.items()
    }
    data = UserData('detection', 'Pascal VOC', path, names, parts, findings)
    measure(data.samples())
    for split, part in parts.items():
        for sample in part.samples:
            if sample.path in roots[split]:
                _read_things(sample, roots[split][sample.path], names, findings)
    return data


def _splits(root: Path, findings: Findings) -> dict[str, dict[str, Path]]:
    """Return image and XML file by split, of all datasets in a folder: itself, or VOC2007 and its like."""
    bases: dict[Path, list[Path]] = {}
    for folder, xmls in _xml_files(root).items():
        bases.setdefault(_base(root, folder), []).extend(xmls)
    found: dict[str, dict[str, Path]] = {}
    sources: dict[str, Path] = {}
    for base, xmls in bases.items():
        inner = [other for other in bases if base in other.parents]
        for split, entries in _splits_of(root, base, xmls, inner, findings).items():
            found.setdefault(split, {}).update(entries)
            for image, xml in entries.items():
                if (other := sources.setdefault(image, xml)) != xml and other.read_bytes() != xml.read_bytes():
                    findings.problem(_SEVERAL, f'{image}: {other} and {xml}')
    return found


def _xml_files(root: Path) -> dict[Path, list[Path]]:
    """Return the XML files in a folder and in the folders in it, by folder; one is not entered a second time."""
    found: dict[Path, list[Path]] = {}
    seen: set[str] = set()
    folders = [root]
    while folders:
        folder = folders.pop()
        if (real := os.path.realpath(folder)) in seen:
            continue
        seen.add(real)
        folders += subfolders(folder)[::-1]
        if xmls := [file for file in files(folder) if file.suffix.lower() == '.xml']:
            found[folder] = xmls
    return found


def _base(root: Path, folder: Path) -> Path:
    """Return the folder of a dataset that has XML files in a folder: what has ``Annotations``, if they are there."""
    if folder.name.casefold() not in _ANNOTATIONS and any(map(is_image, files(folder))):
        return folder
    places = [folder, *folder.parents]
    inside = places[: places.index(root)]
    return next((place.parent for place in inside if place.name.casefold() in _ANNOTATIONS), folder)


def _splits_of(
    root: Path, base: Path, annotations: list[Path], inner: list[Path], findings: Findings
) -> dict[str, dict[str, Path]]:
    """Return image and XML file by split, of one dataset.

    Args:
        root (Path): What the user gave.
        base (Path): The folder that has the images, and perhaps ``ImageSets``.
        annotations (list[Path]): The XML files.
        inner (list[Path]): Folders in ``base`` that are datasets of their own.
        findings (Findings): What is wrong.
    """
    top = Path(os.path.commonpath([file.parent for file in annotations]))
    place, images = _images(base, top, inner)
    with_folders = bool(repeated(file.stem for file in annotations))
    xmls: dict[str, Path] = {}
    for file in annotations:
        if (other := xmls.setdefault(_identity(file, base, with_folders), file)) != file:
            findings.problem(_SEVERAL, f'{other} and {file}')
    named = [(_identity(Path(image), place, with_folders), image) for image in images]
    report_shared(findings, 'XML file', ((str(xmls[name]), image) for name, image in named if name in xmls))
    by_name = dict(reversed(named))  # of several images of a name, the first
    lists, source = _division(root, base, xmls, with_folders)
    if source:
        listed = (by_name[name] for names in lists.values() for name in names if name in by_name)
        report_unlisted(findings, listed, images, f'{source}')
    elif extra := [by_name[name] for name in sorted(by_name.keys() - xmls.keys())]:
        findings.note('Images without an XML file, left out:', *extra)
    if source or set(lists) == {''}:
        used = [file for texts in (split_lists(source) if source else {}).values() for file in texts]
        places = [*_list_folders(base), base / 'splits', base]
        note_unused_lists(places, used, lambda line: _stem(line, xmls, with_folders) in xmls, findings)
    suffix, beside = (os.path.splitext(images[0])[1], os.path.dirname(images[0])) if images else ('.jpg', str(place))
    where = 'ImageSets' if source in _list_folders(base) else source
    found: dict[str, dict[str, Path]] = {}
    for split, names in lists.items():
        if lost := [str(top / f'{name}.xml') for name in names if name not in xmls]:
            findings.problem(f'Annotation files that {where} lists for {split} and that do not exist:', *lost)
        found[split] = {
            by_name.get(name, os.path.join(beside, name + suffix)): xmls[name] for name in names if name in xmls
        }
    return found


def _division(
    root: Path, base: Path, xmls: dict[str, Path], with_folders: bool
) -> tuple[dict[str, list[str]], Path | None]:
    """Return the names of annotation files by split, and the folder of the lists that divide them, if there are."""
    lists, source = _lists(_list_folders(base)[:1], xmls, with_folders)
    if lists:
        return lists, source
    for name, file in xmls.items():
        folders = reversed(file.parent.relative_to(root).parts)
        lists.setdefault(next((split for part in folders if (split := split_of(part))), ''), []).append(name)
    if set(lists) == {''}:
        for folder in (base / 'splits', base):
            outer, source = _lists([folder], xmls, with_folders)
            if known := {split: names for split, names in outer.items() if not xmls.keys().isdisjoint(names)}:
                return known, source
    return lists, None


def _identity(file: Path, folder: Path, with_folders: bool) -> str:
    """Return what an image and its XML file have in common: the name, with its folders where names are not unique."""
    if not with_folders:
        return file.stem
    folders = file.parent.relative_to(folder).parts
    return '/'.join([*(name for name in folders if name.casefold() not in _ANNOTATIONS), file.stem])


def _images(base: Path, top: Path, inner: list[Path]) -> tuple[Path, list[str]]:
    """Return the images, without those of other datasets, and the folder to which their names are relative."""
    for name in ('JPEGImages', 'images', 'Images', 'imgs'):
        if (base / name).is_dir() and (images := images_below(base / name)):
            return base / name, images
    for place in (top, base):
        if images := [image for image in images_below(place) if not any(map(Path(image).is_relative_to, inner))]:
            return base, images
    return base / 'JPEGImages', []


def _stem(line: str, stems: Collection[str], with_folders: bool) -> str:
    """Return the name in a line of a list, which may have a suffix, a flag behind it, or folders that say nothing."""
    first = line.split()[0]
    candidates = [line, os.path.splitext(line)[0], first, os.path.splitext(first)[0]]
    if not with_folders:
        candidates += [os.path.basename(plain_name(name)) for name in candidates]
    return next((name for name in candidates if name in stems), candidates[3] if _is_file(first) else first)


def _is_file(name: str) -> bool:
    """Return whether a name in a list has the suffix of an image or an annotation file."""
    return is_image(name) or name.lower().endswith('.xml')


def _list_folders(base: Path) -> list[Path]:
    """Return the folders with the lists of Pascal VOC: ``ImageSets/Main`` or ``ImageSets``."""
    outer = [folder for folder in subfolders(base) if folder.name.casefold() == 'imagesets']
    inner = [folder for place in outer for folder in subfolders(place) if folder.name.casefold() == 'main']
    return inner or outer


def _lists(folders: list[Path], stems: Collection[str], with_folders: bool) -> tuple[dict[str, list[str]], Path | None]:
    """Return the names that the first folder with lists has, by split, and this folder.

    Args:
        folders (list[Path]): Where lists may be.
        stems (Collection[str]): The names of all annotation files.
        with_folders (bool): Whether these have their folders.
    """
    for folder in filter(Path.is_dir, folders):
        names = {
            split: list(dict.fromkeys(_stem(line, stems, with_folders) for file in texts for line in text_lines(file)))
            for split, texts in split_lists(folder).items()
        }
        if names := {split: found for split, found in names.items() if found}:
            return names, folder
    return {}, None


def _parse(entries: dict[str, Path], findings: Findings) -> dict[str, ElementTree.Element]:
    """Return what XML files have, by image, and take those from the entries that annotate no image.

    Raises:
        UsageError: A file is in CVAT's own format.
    """
    roots = {}
    for image, xml in list(entries.items()):
        try:
            root = ElementTree.parse(xml).getroot()
        except (OSError, ElementTree.ParseError, ValueError, LookupError) as error:  # the last two: of encodings
            findings.problem(_UNREADABLE, f'{xml}: not valid XML, {error}')
            continue
        if root.tag == 'annotations' and any(root.find(tag) is not None for tag in ('image', 'track')):
            raise UsageError(
                f"{xml} is in CVAT's own format, which has all images in one file. Export the annotations from CVAT "
                "as 'COCO' or 'Pascal VOC', or remove the file."
            )
        if root.tag.casefold() == 'annotation' or root.find('object') is not None:
            roots[image] = root
        else:
            findings.note('XML files that are no annotations of Pascal VOC, left out:', f'{xml}: <{root.tag}>')
            del entries[image]
    return roots


def _names(splits: list[dict[str, ElementTree.Element]], findings: Findings) -> list[str]:
    found = {
        (item.findtext('name') or '').strip()
        for roots in splits
        for root in roots.values()
        for item in root.iter('object')
    }
    names = sorted(found - {''})
    for index, name in enumerate(names):
        if same_but_for_case(name, names[:index]):
            close = next(other for other in names[:index] if same_but_for_case(name, [other]))
            findings.problem('Names that differ only in case, spaces or hyphens:', f'{close!r} and {name!r}')
    return names


def _read_things(sample: Sample, root: ElementTree.Element, names: list[str], findings: Findings) -> None:
    size = root.find('size')
    try:
        edges = [int(float(size.findtext(key) or 0)) for key in ('width', 'height')] if size is not None else [0, 0]
    except (ValueError, OverflowError) as error:
        findings.problem(_UNREADABLE, f'{sample.source}: the size of the image, {error}')
        edges = [0, 0]
    sample.stated = (edges[0], edges[1]) if all(edges) else None
    if sample.size is None:
        return
    for number, item in enumerate(root.findall('object'), 1):
        source = f'{sample.source}, object {number}'
        try:
            category = names.index(_name(item))
            found, _ = formats().detections_from_xml_obj(_without_polygons(item), [], sample.size)
            shape = _polygons(item)
        except ValueError as error:
            findings.problem('Objects that cannot be read:', f'{source}: {error}')
            continue
        x1, y1, x2, y2 = map(float, found.xyxy[0])
        # Tools that count pixels from 0 write 0 where Pascal VOC has 1.
        x1, y1 = max(x1, 0.0) if x1 >= -1 else x1, max(y1, 0.0) if y1 >= -1 else y1
        is_crowd = (item.findtext('difficult') or '').strip().casefold() in ('1', 'true', 'yes')
        sample.things.append(Thing(category, (x1, y1, x2 - x1, y2 - y1), shape, is_crowd, source))


def _name(item: ElementTree.Element) -> str:
    if name := (item.findtext('name') or '').strip():
        return name
    raise ValueError('it has no name: expected the name of its class in <name>')


def _without_polygons(item: ElementTree.Element) -> ElementTree.Element:
    """Return an annotation with one object, of which no mask would be drawn."""
    root = ElementTree.Element('annotation')
    ElementTree.SubElement(root, 'object').extend(child for child in item if child.tag in ('name', 'bndbox'))
    return root


def _polygons(item: ElementTree.Element) -> list[list[float]] | None:
    for polygon in item.findall('polygon'):
        if (count := len(polygon.findall('.//*'))) % 2:
            raise ValueError(f'its polygon has {count} values: expected an x and a y for every point')
    polygons = [formats().parse_polygon_points(polygon) for polygon in item.findall('polygon')]
    return [np.maximum(polygon - 1, 0).ravel().tolist() for polygon in polygons] or None
