"""The classes of one dataset: what its settings name, and what its annotations have instead."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mmevm.engine.checks.class_ids import read_custom, read_data_list, read_label_maps
from mmevm.engine.checks.class_names import read_coco, read_multilabel_voc, read_voc
from mmevm.engine.checks.class_report import ClassList, Report, differences, stated_fault
from mmevm.engine.checks.datasets import Leaf, dataset_class, is_remote, outline

# By library and name of the class whose `load_data_list` a dataset uses, which decides what its files are.
_READERS: dict[tuple[str, str], Callable[[ClassList, Any, Report], ClassList]] = {
    ('mmdet', 'CocoDataset'): read_coco,
    ('mmdet', 'XMLDataset'): read_voc,
    ('mmdet', 'BaseSegDataset'): read_label_maps,
    ('mmseg', 'BaseSegDataset'): read_label_maps,
    ('mmseg', 'BaseCDDataset'): read_label_maps,
    ('mmpretrain', 'VOC'): read_multilabel_voc,
    ('mmpretrain', 'CustomDataset'): read_custom,
    ('mmengine', 'BaseDataset'): read_data_list,
}


def _stated(leaf: Leaf) -> tuple[str, Any]:
    """The setting that names a dataset's classes, and its value, ``None`` where its class's own names stay."""
    metainfo = leaf.settings.get('metainfo') or {}
    if isinstance(metainfo, Mapping) and metainfo.get('classes') is not None:
        return f'{leaf.key}.metainfo.classes', metainfo['classes']
    return f'{leaf.key}.classes', leaf.settings.get('classes')


def _reader(dataset: Any) -> Callable[[ClassList, Any, Report], ClassList] | None:
    base = next(base for base in type(dataset).__mro__ if 'load_data_list' in vars(base))
    return _READERS.get((base.__module__.partition('.')[0], base.__name__))


def examine(leaf: Leaf, scope: str | None, report: Report, read: bool = True) -> ClassList | None:
    """Find a dataset's class names, and compare them with its annotations.

    Args:
        leaf (Leaf): The dataset's settings.
        scope (str | None): The config's ``default_scope``.
        report (Report): Takes what is found.
        read (bool): Whether to look at the annotations.

    Returns:
        ClassList | None: ``None`` if there is a problem, or nothing is known.
    """
    before = len(report.problems)
    found = _from_settings(leaf, scope, report)
    if found is None:
        return None
    entry, dataset = found
    reader = None if dataset is None or is_remote(leaf.settings) else _reader(dataset)
    if reader and read:
        try:
            entry = reader(entry, dataset, report)
        except OSError as error:
            report.problems.append(f'{leaf.key}: {error.filename}: {error.strerror}')
        except Exception as error:  # of files in a form that nobody has thought of, which the dataset may know
            report.notes.append(
                f'{leaf.key}: its classes could not be compared with its annotations: {type(error).__name__}: {error}'
            )
    return entry._replace(is_read=reader is not None) if len(report.problems) == before else None


def _from_settings(leaf: Leaf, scope: str | None, report: Report) -> tuple[ClassList, Any] | None:
    """What the settings say of the classes, and the dataset without its annotations, if that can be had."""
    key, stated = _stated(leaf)
    metainfo = leaf.settings.get('metainfo') or {}
    if 'CLASSES' in metainfo:
        report.problems.append(f'{leaf.key}.metainfo.CLASSES is not read: the key is classes, in lower case.')
        return None
    if stated is not None and (fault := stated_fault(key, stated)):
        report.problems.append(fault)
        return None
    if isinstance(stated, list | tuple) and (known := _fixed_names(leaf, scope)) and not set(stated) <= set(known):
        report.problems += [
            f'{key}: {leaf.name} knows {len(known)} classes, of which a config can choose some.',
            *differences(stated, known, f'in {leaf.name}'),
            "For classes of your own: type='BaseSegDataset', the names in the order of the ids.",
        ]
        return None
    try:
        dataset = outline(leaf.settings, scope)
    except Exception as error:
        reason = str(error) or type(error).__name__
        report.problems.append(f'{leaf.key} ({leaf.name}) cannot be built: {reason}')
        return None
    if dataset is None:
        return (ClassList(leaf, tuple(stated), True, scope), None) if isinstance(stated, list | tuple) else None
    names = dataset.metainfo.get('classes')
    if names is not None and (fault := stated_fault(f'{leaf.name}.METAINFO["classes"]', names)):
        report.problems.append(fault)
        return None
    _check_palette(leaf, dataset, names, report)
    things = dataset.metainfo.get('thing_classes')
    entry = ClassList(
        leaf,
        None if names is None else tuple(names),
        stated is not None,
        scope,
        things=None if things is None else len(things),
    )
    return entry, dataset


def _fixed_names(leaf: Leaf, scope: str | None) -> Sequence[str] | None:
    """The names that a segmentation dataset's class has, whose ids a choice of them is mapped from."""
    kind = dataset_class(leaf.settings, scope)
    return kind.METAINFO.get('classes') if hasattr(kind, 'get_label_map') else None


def _check_palette(leaf: Leaf, dataset: Any, names: Sequence[str] | None, report: Report) -> None:
    palette = dataset.metainfo.get('palette')
    if not isinstance(palette, list | tuple) or not names or len(palette) >= len(names):
        return
    said = f'{leaf.key}: the palette has {len(palette)} colours for {len(names)} classes'
    if (leaf.settings.get('metainfo') or {}).get('palette') is not None:
        report.problems.append(f'{said}. metainfo.palette needs one (R, G, B) for each class.')
    else:
        report.notes.append(f'{said}, so that drawing will fail: give a metainfo.palette of {len(names)} colours.')
