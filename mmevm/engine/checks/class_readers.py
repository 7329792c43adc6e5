"""Comparison of a dataset's class list with its annotations, by the format of the annotations."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from mmengine.registry import TRANSFORMS
from PIL import Image

from mmevm.engine.checks import annotations
from mmevm.engine.checks.annotations import AnnotationError
from mmevm.engine.checks.class_lists import LISTED, ClassList, Report, differences, nearest, quoted, same_but_for_case
from mmevm.engine.checks.datasets import is_remote
from mmevm.registry import type_name

#: How many label maps of a dataset are read.
SAMPLED_MAPS = 32
#: MMEngine's JSON files up to this size are read; larger ones are checked when the dataset is built.
_JSON_SIZE = 50 * 2**20


def check_coco(entry: ClassList, path: str, strict: bool, report: Report) -> ClassList:
    """Compare class names with a COCO file; MMDetection drops its categories with other names.

    Args:
        entry (ClassList): The dataset's names.
        path (str): The file.
        strict (bool): Whether a difference is an error. Some lists of MMDetection's own datasets differ from the
            published files.
        report (Report): Gets the problems and notes.

    Returns:
        ClassList: With the names in the order in which MMDetection numbers them: the file's.
    """
    key, names = entry.leaf.key, entry.names or ()
    try:
        categories = annotations.read_categories(path)
    except AnnotationError as error:
        report.problems.append(f'{key}: {path} cannot be used: {error}')
        return entry
    numbered = tuple(name for name in categories.names if name in names)
    faults = _category_faults(key, path, names, categories.names, report)
    if faults and strict:
        report.problems += faults
    elif faults:
        report.notes.append('\n'.join(faults))
    elif unused := [name for name in categories.names if name not in names]:
        report.notes.append(
            f'{key}: {len(numbered)} of the {len(categories.names)} categories of {path} are classes: '
            f'{quoted(numbered)}. Left out: {quoted(unused)}'
        )
    _check_category_ids(entry, path, categories, report)
    return entry._replace(numbered=None if faults else numbered, source=os.path.realpath(path))


def _category_faults(key: str, path: str, names: Sequence[str], found: Sequence[str], report: Report) -> list[str]:
    numbered = tuple(name for name in found if name in names)
    if len(numbered) < len(set(names)):
        report.wanted = report.wanted or _fitting(names, found)
        header = f'{key}: the classes and the categories of {path} do not match.'
        return [header, *differences(names, found, 'in the file')]
    if len(numbered) > len(set(numbered)):
        twice = sorted({name for name in numbered if numbered.count(name) > 1})
        return [f'{key}: {path} has several categories with the same name: {quoted(twice)}']
    if numbered == names:
        return []
    report.wanted = report.wanted or numbered
    return [
        f'{key}: MMDetection numbers classes in the order of the file, so that the names would be mixed up.',
        f'  {path}: {quoted(numbered)}',
        f'  in the config: {quoted(names)}',
    ]


def _check_category_ids(entry: ClassList, path: str, categories: annotations.Categories, report: Report) -> None:
    key, undefined = entry.leaf.key, categories.undefined
    unused = [name for name in categories.unused if name in (entry.names or ())]
    if undefined:
        # Undefined and unused ids together mean that the annotations count from another number.
        (report.problems if unused else report.notes).append(
            f"{key}: annotations of {path} have category ids that its 'categories' do not define: "
            f'{", ".join(map(str, undefined[:LISTED]))}. Their boxes are dropped'
        )
    if unused and entry.leaf.phase == 'train':
        report.notes.append(f'{key}: {path} has no annotation of {quoted(unused)}')


def _fitting(names: Sequence[str], found: Sequence[str]) -> tuple[str, ...]:
    """Return the categories that a config's names seem to mean, or all if most names resemble none."""
    meant = {name if name in found else nearest(name, found) for name in names}
    is_other_list = len(meant - {None}) * 2 < len(names)
    return tuple(name for name in found if is_other_list or name in meant)


def _read_coco(entry: ClassList, report: Report) -> ClassList:
    kind = type(entry.dataset)
    is_stock = kind.__module__.startswith('mmdet.') and kind.__name__ != 'CocoDataset'
    return check_coco(entry, entry.dataset.ann_file, entry.stated or not is_stock, report)


def _check_xml(entry: ClassList, list_file: str, folder: str, report: Report) -> ClassList:
    """Compare with Pascal VOC's format: a list of names, and an XML file of each."""
    key, names = entry.leaf.key, entry.names or ()
    with open(list_file, encoding='utf-8') as file:
        paths = [os.path.join(folder, f'{name}.xml') for name in file.read().splitlines() if name]
    counts, read, faults = annotations.read_xml_names(paths)
    if faults:
        report.problems += [
            f'{key}: {len(faults)} of {read} annotation files cannot be read:',
            *(f'  {fault}' for fault in faults[:LISTED]),
        ]
        return entry
    absent = [name for name in names if name not in counts]
    unknown = [name for name in counts if name not in names]
    # A class may well be absent from a small validation set, where a similar name proves nothing.
    resembles = nearest if entry.leaf.phase == 'train' else same_but_for_case
    misspelt = [name for name in absent if resembles(name, unknown)]
    if counts and (misspelt or len(absent) == len(names)):
        report.problems += [
            f'{key}: the classes and the objects of {read} XML files do not match.',
            *differences(names, list(counts), 'in the files'),
        ]
        report.wanted = report.wanted or _fitting(names, sorted(counts))
    elif unknown:
        count = sum(counts[name] for name in unknown)
        report.notes.append(
            f'{key}: {count} objects in {read} XML files are of no class and left out: {quoted(unknown)}'
        )
    if counts and absent and not misspelt and entry.leaf.phase == 'train':
        report.notes.append(f'{key}: {read} XML files have no object of {quoted(absent)}')
    return entry


def _read_voc(entry: ClassList, report: Report) -> ClassList:
    dataset = entry.dataset
    return _check_xml(entry, dataset.ann_file, os.path.join(dataset.sub_data_root, dataset.ann_subdir), report)


def _read_multilabel_voc(entry: ClassList, report: Report) -> ClassList:
    folder = entry.dataset.ann_prefix
    return _check_xml(entry, entry.dataset.image_set_path, folder, report) if folder else entry


def _read_custom(entry: ClassList, report: Report) -> ClassList:
    """Compare with MMPretrain's format: a list of files and class ids or, without one, a folder per class."""
    if not entry.dataset.with_label:
        return entry
    if not entry.dataset.ann_file:
        return _read_folders(entry, report)
    key, path = entry.leaf.key, entry.dataset.ann_file
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
    """Add the highest class id, and report a problem if it has no name."""
    if entry.names is not None and highest >= len(entry.names):
        report.problems.append(
            f'{entry.leaf.key}: there are {len(entry.names)} names of classes, for the ids 0 to '
            f'{len(entry.names) - 1}, and {source} has {highest}.'
        )
    return entry._replace(highest=highest, source=source)


def _read_folders(entry: ClassList, report: Report) -> ClassList:
    key, names, root = entry.leaf.key, entry.names, entry.dataset.img_prefix
    folders = annotations.list_class_folders(root)
    if names is None:
        return entry._replace(numbered=folders)
    moved = [
        name
        for index, name in enumerate(names)
        if same_but_for_case(name, folders) and not same_but_for_case(name, folders[index : index + 1])
    ]
    if len(names) != len(folders):
        report.problems += [
            f'{key}: {root} has {len(folders)} folders, each of which is a class, and there are {len(names)} names.',
            *differences(names, folders, 'in the folders'),
        ]
        if entry.leaf.name != 'CustomDataset' and not entry.stated:
            report.problems.append("For classes of your own: type='CustomDataset', which takes the folders' names.")
        report.wanted = report.wanted or folders
    elif moved:
        report.problems += [
            f'{key}: MMPretrain numbers the folders of {root} in alphabetical order, so that '
            'the names would be mixed up.',
            f'  folders: {quoted(folders)}',
            f'  in the config: {quoted(names)}',
        ]
        report.wanted = report.wanted or folders
    return entry._replace(numbered=folders)


def _read_data_list(entry: ClassList, report: Report) -> ClassList:
    """Compare with a JSON file of MMEngine's format."""
    path = entry.dataset.ann_file
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
            f'{key}: the class ids of {path} refer to its own list, from which the config differs.',
            *differences(entry.names, found, 'in the file'),
        ]
        if set(found) == set(entry.names):
            report.problems += [f'  {path}: {quoted(found)}', f'  in the config: {quoted(entry.names)}']
        report.wanted = report.wanted or tuple(found)
        return entry
    if found is not None:
        entry = entry._replace(names=tuple(found))
    ids = [(label, sample.get('img_path')) for sample in samples for label in sample_labels(sample)]
    if not ids:
        return entry
    highest, image = max(ids, key=lambda pair: pair[0])
    return _with_ids(entry, highest, f'{path}, image {image}', report)


def sample_labels(sample: Mapping) -> Iterator[int]:
    """Yield the class ids of a sample of MMEngine's format: of the image, or of the objects in it."""
    labels = sample.get('gt_label')
    labels = list(labels) if isinstance(labels, list | tuple) else [labels]
    labels += [instance.get('bbox_label') for instance in sample.get('instances') or ()]
    yield from (int(label) for label in labels if isinstance(label, int | np.integer))


def _read_label_maps(entry: ClassList, report: Report) -> ClassList:
    """Compare with some of a segmentation dataset's label maps, loaded as the pipeline loads them."""
    transforms = [step for step in entry.leaf.settings.get('pipeline') or () if type_name(step) == 'LoadAnnotations']
    if entry.names is None:
        report.problems.append(
            f'{entry.leaf.key}: no class has a name. Give metainfo=dict(classes=(…)), in the order of the ids.'
        )
    if not transforms:
        return entry
    ignored = getattr(entry.dataset, 'ignore_index', 255)
    used = ((value, path) for path, values in _sampled_maps(entry, transforms[0], report) for value in values)
    highest, source = max((pair for pair in used if pair[0] != ignored), key=lambda pair: pair[0], default=(-1, ''))
    return entry._replace(highest=highest, sampled=True, source=source) if highest >= 0 else entry


def _sampled_maps(entry: ClassList, loading: dict, report: Report) -> Iterator[tuple[str, Sequence[int]]]:
    """Yield path and values of evenly spaced label maps."""
    with TRANSFORMS.switch_scope_and_registry(entry.leaf.scope) as registry:
        load = registry.build(dict(loading))
    samples = [sample for sample in entry.dataset.load_data_list() if os.path.isfile(sample.get('seg_map_path') or '')]
    for sample in samples[:: -(-len(samples) // SAMPLED_MAPS) or 1]:
        path = sample['seg_map_path']
        try:
            depth = Image.open(path).mode
            labels = load(sample)['gt_seg_map']
        except Exception:  # a broken file, which the check of the images reports
            continue
        if labels.ndim != 2:
            report.problems.append(
                f'{entry.leaf.key}: {path} has {labels.shape[-1]} channels. A label map has one, with '
                'class ids; colours have to be converted.'
            )
            return
        values = np.flatnonzero(np.bincount(labels.ravel()))
        if depth.startswith('I') and (raw := int(np.asarray(Image.open(path)).max())) > 255:
            values = np.append(values, raw)
        yield path, values.tolist()


# By library and name of the class that defines a dataset's `load_data_list`, which decides what its files are.
_READERS: dict[tuple[str, str], Callable[[ClassList, Report], ClassList]] = {
    ('mmdet', 'CocoDataset'): _read_coco,
    ('mmdet', 'XMLDataset'): _read_voc,
    ('mmdet', 'BaseSegDataset'): _read_label_maps,
    ('mmseg', 'BaseSegDataset'): _read_label_maps,
    ('mmseg', 'BaseCDDataset'): _read_label_maps,
    ('mmpretrain', 'VOC'): _read_multilabel_voc,
    ('mmpretrain', 'CustomDataset'): _read_custom,
    ('mmengine', 'BaseDataset'): _read_data_list,
}


def compare_with_annotations(entry: ClassList, report: Report) -> ClassList | None:
    """Compare a dataset's class names with its annotations, add what they number; ``None`` after a problem."""
    dataset, key, before = entry.dataset, entry.leaf.key, len(report.problems)
    if dataset is None or is_remote(entry.leaf.settings):
        return entry
    base = next(base for base in type(dataset).__mro__ if 'load_data_list' in vars(base))
    reader = _READERS.get((base.__module__.partition('.')[0], base.__name__))
    if reader is None:
        return entry
    entry = entry._replace(is_read=True)
    try:
        entry = reader(entry, report)
    except OSError as error:
        report.problems.append(f'{key}: {error.filename}: {error.strerror}')
    except Exception as error:  # an unexpected format, which the dataset may know
        report.notes.append(
            f'{key}: its classes could not be compared with its annotations: {type(error).__name__}: {error}'
        )
    return entry if len(report.problems) == before else None
