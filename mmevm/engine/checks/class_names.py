"""Comparison of class names with annotations that have names: COCO's JSON and Pascal VOC's XML."""

import os
from collections.abc import Sequence
from typing import Any

from mmevm.engine.checks import annotations
from mmevm.engine.checks.annotations import AnnotationError
from mmevm.engine.checks.class_report import LISTED, ClassList, Report, differences, listed, nearest, same_but_for_case


def check_coco(entry: ClassList, path: str, strict: bool, report: Report) -> ClassList:
    """Compare class names with a COCO file, of which MMDetection drops the categories whose names are not among them.

    Args:
        entry (ClassList): The dataset's names.
        path (str): The file.
        strict (bool): Whether a difference is a problem. Of MMDetection's own datasets, some lists differ from the
            published files.
        report (Report): Takes what is found.

    Returns:
        ClassList: With the names in the order in which MMDetection numbers them: the file's.
    """
    key, names = entry.leaf.key, entry.names or ()
    try:
        categories = annotations.read_categories(path)
    except AnnotationError as error:
        report.problems.append(f'{key}: {path} cannot be used: {error}')
        return entry
    found = categories.names
    numbered = tuple(name for name in found if name in names)
    unused = [name for name in found if name not in names]
    faults = []
    if len(numbered) < len(set(names)):
        faults = [
            f'{key}: the classes and the categories of {path} do not match.',
            *differences(names, found, 'in the file'),
        ]
        report.wanted = report.wanted or _fitting(names, found)
    elif len(numbered) > len(set(numbered)):
        twice = sorted({name for name in numbered if numbered.count(name) > 1})
        faults = [f'{key}: {path} has several categories with the same name: {listed(twice)}']
    elif numbered != names:
        faults = [
            f'{key}: MMDetection numbers classes in the order of the file, so that the names would be mixed up.',
            f'  {path}: {listed(numbered)}',
            f'  in the config: {listed(names)}',
        ]
        report.wanted = report.wanted or numbered
    if faults and strict:
        report.problems += faults
    elif faults:
        report.notes.append('\n'.join(faults))
    elif unused:
        report.notes.append(
            f'{key}: {len(numbered)} of the {len(found)} categories of {path} are classes: '
            f'{listed(numbered)}. Left out: {listed(unused)}'
        )
    _check_category_ids(entry, path, categories, report)
    return entry._replace(numbered=None if faults else numbered, source=os.path.realpath(path))


def _check_category_ids(entry: ClassList, path: str, categories: annotations.Categories, report: Report) -> None:
    key, undefined = entry.leaf.key, categories.undefined
    idle = [name for name in categories.unused if name in (entry.names or ())]
    if undefined:
        said = (
            f"{key}: annotations of {path} have category ids that its 'categories' do not define: "
            f'{", ".join(map(str, undefined[:LISTED]))}. Their boxes are dropped'
        )
        # Ids that are wanting and ids that are too many: they are counted from another number.
        (report.problems if idle else report.notes).append(said)
    if idle and entry.leaf.phase == 'train':
        report.notes.append(f'{key}: {path} has no annotation of {listed(idle)}')


def _fitting(names: Sequence[str], found: Sequence[str]) -> tuple[str, ...]:
    """The categories that a config's names seem to mean, all if most of them mean none; in the file's order."""
    meant = {name if name in found else nearest(name, found) for name in names}
    few = len(meant - {None}) * 2 < len(names)
    return tuple(name for name in found if few or name in meant)


def read_coco(entry: ClassList, dataset: Any, report: Report) -> ClassList:
    stock = type(dataset).__module__.startswith('mmdet.') and type(dataset).__name__ != 'CocoDataset'
    strict = not stock or entry.stated
    return check_coco(entry, dataset.ann_file, strict, report)


def _check_xml(entry: ClassList, paths: Sequence[str], report: Report) -> ClassList:
    key, names = entry.leaf.key, entry.names or ()
    found = annotations.read_xml_names(paths)
    if found.faults:
        report.problems += [
            f'{key}: {len(found.faults)} of {found.read} annotation files cannot be read:',
            *(f'  {fault}' for fault in found.faults[:LISTED]),
        ]
        return entry
    absent = [name for name in names if name not in found.counts]
    unknown = [name for name in found.counts if name not in names]
    # What a class is trained on has to be there; of a small validation set, a class may well be absent.
    alike = nearest if entry.leaf.phase == 'train' else same_but_for_case
    misspelt = [name for name in absent if alike(name, unknown)]
    if found.counts and (misspelt or len(absent) == len(names)):
        report.problems += [
            f'{key}: the classes and the objects of {found.read} XML files do not match.',
            *differences(names, list(found.counts), 'in the files'),
        ]
        report.wanted = report.wanted or _fitting(names, sorted(found.counts))
    elif unknown:
        left = sum(found.counts[name] for name in unknown)
        report.notes.append(
            f'{key}: {left} objects in {found.read} XML files are of no class and left out: {listed(unknown)}'
        )
    if found.counts and absent and not misspelt and entry.leaf.phase == 'train':
        report.notes.append(f'{key}: {found.read} XML files have no object of {listed(absent)}')
    return entry


def read_voc(entry: ClassList, dataset: Any, report: Report) -> ClassList:
    folder = os.path.join(dataset.sub_data_root, dataset.ann_subdir)
    return _check_xml(entry, _xml_paths(dataset.ann_file, folder), report)


def read_multilabel_voc(entry: ClassList, dataset: Any, report: Report) -> ClassList:
    if not dataset.ann_prefix:
        return entry
    return _check_xml(entry, _xml_paths(dataset.image_set_path, dataset.ann_prefix), report)


def _xml_paths(list_file: str, folder: str) -> list[str]:
    with open(list_file, encoding='utf-8') as file:
        return [os.path.join(folder, f'{name}.xml') for name in file.read().splitlines() if name]
