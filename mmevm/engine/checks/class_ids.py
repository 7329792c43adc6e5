"""Comparison of class lists with annotations that have numbers: folders, lists, MMEngine's JSON and label maps."""

import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from PIL import Image

from mmevm.engine.checks import annotations
from mmevm.engine.checks.annotations import AnnotationError
from mmevm.engine.checks.class_report import ClassList, Report, differences, listed, same_but_for_case
from mmevm.registry import type_name

#: So many label maps of a dataset are read.
SAMPLED_MAPS = 32
#: MMEngine's JSON files up to this size are read; those of larger ones are checked when the dataset is built.
_JSON_SIZE = 50 * 2**20


def read_custom(entry: ClassList, dataset: Any, report: Report) -> ClassList:
    """Compare with a dataset of MMPretrain that has a list of files and class ids or, without one, a folder a class."""
    if not dataset.with_label:
        return entry
    return _read_list(entry, dataset.ann_file, report) if dataset.ann_file else _read_folders(entry, dataset, report)


def _read_list(entry: ClassList, path: str, report: Report) -> ClassList:
    key = entry.leaf.key
    try:
        found = annotations.read_label_range(path)
    except AnnotationError as error:
        report.problems.append(f'{key}: {path} cannot be used: {error}')
        return entry
    if found is None:
        return entry
    lowest, highest = found
    if lowest.label < 0:
        report.problems.append(f'{key}: class ids begin with 0, and line {lowest.number} of {path} has {lowest.label}.')
    return _with_ids(entry, highest.label, f'line {highest.number} of {path}, {highest.text}', report)


def _with_ids(entry: ClassList, highest: int, source: str, report: Report) -> ClassList:
    """Note the highest class id, and say if it has no name."""
    if entry.names is not None and highest >= len(entry.names):
        report.problems.append(
            f'{entry.leaf.key}: there are {len(entry.names)} names of classes, for the ids 0 to '
            f'{len(entry.names) - 1}, and {source} has {highest}.'
        )
    return entry._replace(highest=highest, source=source)


def _read_folders(entry: ClassList, dataset: Any, report: Report) -> ClassList:
    folders = annotations.list_class_folders(dataset.img_prefix)
    key, names = entry.leaf.key, entry.names
    if names is None:
        return entry._replace(numbered=folders)
    moved = [
        name
        for index, name in enumerate(names)
        if same_but_for_case(name, folders) and not same_but_for_case(name, folders[index : index + 1])
    ]
    if len(names) != len(folders):
        report.problems += [
            f'{key}: {dataset.img_prefix} has {len(folders)} folders, each of which is a class, and '
            f'there are {len(names)} names.',
            *differences(names, folders, 'in the folders'),
        ]
        if entry.leaf.name != 'CustomDataset' and not entry.stated:
            report.problems.append("For classes of your own: type='CustomDataset', which takes the folders' names.")
        report.wanted = report.wanted or folders
    elif moved:
        report.problems += [
            f'{key}: MMPretrain numbers the folders of {dataset.img_prefix} by the alphabet, so that '
            'the names would be mixed up.',
            f'  folders: {listed(folders)}',
            f'  in the config: {listed(names)}',
        ]
        report.wanted = report.wanted or folders
    return entry._replace(numbered=folders)


def read_data_list(entry: ClassList, dataset: Any, report: Report) -> ClassList:
    """Compare with a JSON file of MMEngine's format."""
    path = dataset.ann_file
    if not path.endswith('.json') or os.path.getsize(path) > _JSON_SIZE:
        return entry
    key = entry.leaf.key
    try:
        found, samples = annotations.read_data_list(path)
    except AnnotationError as error:
        report.problems.append(f'{key}: {path} cannot be used: {error}')
        return entry
    if found is not None and entry.names is not None and tuple(found) != entry.names:
        report.problems += [
            f'{key}: {path} has class ids of its own list, from which the config differs.',
            *differences(entry.names, found, 'in the file'),
        ]
        if set(found) == set(entry.names):
            report.problems += [f'  {path}: {listed(found)}', f'  in the config: {listed(entry.names)}']
        report.wanted = report.wanted or tuple(found)
        return entry
    if found is not None:
        entry = entry._replace(names=tuple(found))
    ids = [(label, sample.get('img_path')) for sample in samples for label in sample_labels(sample)]
    if not ids:
        return entry
    highest, image = max(ids, key=lambda pair: pair[0])
    return _with_ids(entry, highest, f'{path}, image {image}', report)


def sample_labels(sample: dict) -> Iterator[int]:
    """Yield the class ids of a sample of MMEngine's format: of the whole image, or of the objects in it."""
    labels = sample.get('gt_label')
    for label in labels if isinstance(labels, list | tuple) else [labels]:
        if isinstance(label, int | np.integer):
            yield int(label)
    for instance in sample.get('instances') or ():
        label = instance.get('bbox_label')
        if isinstance(label, int | np.integer):
            yield int(label)


def read_label_maps(entry: ClassList, dataset: Any, report: Report) -> ClassList:
    """Compare with some of a segmentation dataset's label maps, loaded as the pipeline loads them."""
    transforms = [step for step in entry.leaf.settings.get('pipeline') or () if type_name(step) == 'LoadAnnotations']
    if entry.names is None:
        report.problems.append(
            f'{entry.leaf.key}: no class has a name. Give metainfo=dict(classes=(…)), in the order of the ids.'
        )
    if not transforms:
        return entry
    ignored = getattr(dataset, 'ignore_index', 255)
    highest, source = -1, ''
    for path, values in _sampled_maps(dataset, transforms[0], entry, report):
        used = [value for value in values if value != ignored]
        if used and max(used) > highest:
            highest, source = max(used), path
    return entry._replace(highest=highest, sampled=True, source=source) if highest >= 0 else entry


def _sampled_maps(dataset: Any, loading: dict, entry: ClassList, report: Report) -> Iterator[tuple[str, Sequence[int]]]:
    """Yield path and values of evenly spaced label maps."""
    from mmengine.registry import TRANSFORMS

    with TRANSFORMS.switch_scope_and_registry(entry.scope) as registry:
        load = registry.build(dict(loading))
    samples = [sample for sample in dataset.load_data_list() if os.path.isfile(sample.get('seg_map_path') or '')]
    for sample in samples[:: -(-len(samples) // SAMPLED_MAPS) or 1]:
        path = sample['seg_map_path']
        try:
            depth = Image.open(path).mode
            labels = load(sample)['gt_seg_map']
        except Exception:  # a broken file, which the check of the images names
            continue
        if labels.ndim != 2:
            report.problems.append(
                f'{entry.leaf.key}: {path} has {labels.shape[-1]} channels. A label map has one, of '
                'class ids; colours have to be converted.'
            )
            return
        values = np.flatnonzero(np.bincount(labels.ravel()))
        if depth.startswith('I') and (raw := int(np.asarray(Image.open(path)).max())) > 255:
            values = np.append(values, raw)
        yield path, values.tolist()
