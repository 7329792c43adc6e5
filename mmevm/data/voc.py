"""Datasets in Pascal VOC's format: an XML file for each image, and lists of names in ``ImageSets/Main``."""

import os
import xml.etree.ElementTree as ElementTree
from collections.abc import Collection
from pathlib import Path

import numpy as np

from mmevm.data.images import measure, report_unlisted
from mmevm.data.records import (
    SPLITS,
    Findings,
    Sample,
    Split,
    Thing,
    UserData,
    files,
    images_below,
    is_image,
    split_of,
    subfolders,
    text_lines,
)
from mmevm.data.supervision import formats
from mmevm.engine.checks.class_lists import same_but_for_case

_UNREADABLE = 'Annotation files that cannot be read:'


def read(path: Path) -> UserData | None:
    """Read a folder with XML files; ``None`` for a folder of another layout."""
    if path.is_file():
        return None
    findings = Findings()
    splits: dict[str, dict[str, Path]] = {}
    for folder in _annotation_folders(path):
        for split, entries in _splits(path, folder, findings).items():
            splits.setdefault(split, {}).update(entries)
    if not splits:
        return None
    if len(splits) > 1 and (beside := splits.pop('', None)):
        findings.note('Images outside of the folders of splits, left out:', *beside)
    roots = {name: _parse(entries, findings) for name, entries in splits.items()}
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


def _annotation_folders(root: Path) -> list[Path]:
    """Return the folders with XML files: this one, a folder of each split, or those of VOC2007 and its like."""
    level = [root]
    for _ in range(4):
        found = [folder for folder in level if any(file.suffix == '.xml' for file in files(folder))]
        if found:
            return found
        level = [inner for folder in level for inner in subfolders(folder)]
    return []


def _splits(root: Path, folder: Path, findings: Findings) -> dict[str, dict[str, Path]]:
    """Return image and XML file by split."""
    base = folder.parent if folder.name.casefold() in ('annotations', 'xml', 'labels') and folder != root else folder
    images = _images(base, folder)
    xmls = {file.stem: file for file in files(folder) if file.suffix == '.xml'}
    by_stem: dict[str, str] = {}
    for image in images:
        stem = os.path.splitext(os.path.basename(image))[0]
        if (other := by_stem.setdefault(stem, image)) != image and stem in xmls:
            findings.problem('Several images for one XML file; keep one of them:', f'{xmls[stem]}: {other} and {image}')
    lists = _lists(base, xmls)
    if lists:
        listed = (by_stem[stem] for stems in lists.values() for stem in stems if stem in by_stem)
        report_unlisted(findings, listed, images, f'{base / "ImageSets"}')
    else:
        inside = folder.relative_to(root).parts
        split = next((name for part in reversed(inside) if (name := split_of(part))), '')
        lists = {split: list(xmls)}
        if extra := [by_stem[stem] for stem in sorted(by_stem.keys() - xmls.keys())]:
            findings.note('Images without an XML file, left out:', *extra)
    found: dict[str, dict[str, Path]] = {}
    for split, stems in lists.items():
        if lost := [str(folder / f'{stem}.xml') for stem in stems if stem not in xmls]:
            findings.problem(f'Annotation files that ImageSets lists for {split} and that do not exist:', *lost)
        guess = images[0] if images else str(base / 'JPEGImages/x.jpg')
        suffix, place = os.path.splitext(guess)[1], os.path.dirname(guess)
        found[split] = {
            by_stem.get(stem, os.path.join(place, stem + suffix)): xmls[stem] for stem in stems if stem in xmls
        }
    return found


def _images(base: Path, folder: Path) -> list[str]:
    places = [base / name for name in ('JPEGImages', 'images', 'Images', 'imgs')] + [folder, base]
    for place in places:
        if place.is_dir() and (images := images_below(place)):
            return images
    return []


def _stem(line: str, stems: Collection[str]) -> str:
    """Return the name in a line of a list, which may have a suffix, or a flag behind it."""
    first = line.split()[0]
    candidates = [line, os.path.splitext(line)[0], first, os.path.splitext(first)[0]]
    return next((name for name in candidates if name in stems), candidates[3] if _is_file(first) else first)


def _is_file(name: str) -> bool:
    """Return whether a name in a list has the suffix of an image or an annotation file."""
    return is_image(name) or name.lower().endswith('.xml')


def _lists(base: Path, stems: Collection[str]) -> dict[str, list[str]]:
    """Return the names that ``ImageSets/Main`` lists by split; ``trainval`` counts where it is not divided.

    Args:
        base (Path): The folder that has ``ImageSets``.
        stems (Collection[str]): The names of all annotation files.
    """
    folder = next(
        (base / name for name in ('ImageSets/Main', 'ImageSets', 'imagesets') if (base / name).is_dir()), None
    )
    if folder is None:
        return {}
    names = {
        file.stem: [_stem(line, stems) for line in text_lines(file)]
        for file in files(folder)
        if file.suffix == '.txt' and (file.stem in (*SPLITS, 'trainval', 'valid'))
    }
    if 'train' not in names and 'trainval' in names:
        names['train'] = names['trainval']
    names.pop('trainval', None)
    return {split_of(split) or '': stems for split, stems in names.items() if stems}


def _parse(entries: dict[str, Path], findings: Findings) -> dict[str, ElementTree.Element]:
    roots = {}
    for image, xml in entries.items():
        try:
            roots[image] = ElementTree.parse(xml).getroot()
        except (OSError, ElementTree.ParseError, ValueError, LookupError) as error:  # the last two: of encodings
            findings.problem(_UNREADABLE, f'{xml}: not valid XML, {error}')
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
        is_crowd = (item.findtext('difficult') or '0').strip() == '1'
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
