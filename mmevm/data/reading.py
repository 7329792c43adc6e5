"""From a path to a dataset: which layout it has, what is wrong with it, and its splits."""

import os
from collections.abc import Callable
from pathlib import Path

from mmevm.data import checks, coco, folders, masks, pairs, splits, voc, yolo
from mmevm.data.class_files import DIFFER, alike
from mmevm.data.images import measure, report_broken, report_unusual
from mmevm.data.records import SPLITS, UserData, files, is_image, split_of, subfolders, unread_below
from mmevm.errors import UsageError

_Reader = Callable[[Path], UserData | None]
_READERS: dict[str, tuple[_Reader, ...]] = {
    'detection': (coco.read, yolo.read, voc.read),
    'segmentation': (masks.read,),
    'classification': (folders.read,),
}
_ARCHIVES = ('.zip', '.tar', '.gz', '.tgz', '.bz2', '.xz', '.7z', '.rar')
DETECTION_LAYOUTS = (
    'a COCO file or a folder with annotations/*.json or train/_annotations.coco.json; a YOLO data.yaml or its folder; '
    'Pascal VOC (Annotations/*.xml, JPEGImages)'
)
LAYOUTS = (
    f'{DETECTION_LAYOUTS}; images/ and masks/ with PNG label maps; a folder for each class, with or without train/ and '
    'val/'
)


def read_data(
    path: str | os.PathLike,
    kind: str | None = None,
    skip_broken: bool = False,
    trained: str | None = None,
    with_shapes: bool = True,
) -> UserData:
    """Read and check a dataset.

    Args:
        path (str | os.PathLike): A folder or an annotation file.
        kind (str, optional): ``'detection'``, ``'segmentation'`` or ``'classification'``, which is preferred where a
            folder may be read as several.
        skip_broken (bool): Leave out images and objects that cannot be used, instead of listing them as faults.
        trained (str, optional): For evaluations: the text of the config that the model was trained with.
        with_shapes (bool): Whether polygons are needed, of objects with boxes; if not, faulty ones are dropped.

    Returns:
        UserData: With a training and a validation split, or the one to evaluate as ``'test'``; its ``findings`` say
        what is wrong.

    Raises:
        UsageError: There is no dataset of a known layout.
    """
    source = Path(os.path.abspath(os.path.expanduser(path)))
    data = _read(source, kind)
    if data.layout == 'COCO':
        measure(data.samples())
    elif unread := unread_below(data.root):  # a COCO file names its images
        data.findings.note("Images of formats that OpenMMLab's loaders do not read, left out:", *unread)
    if trained is not None and source.is_file() and split_of(source.stem) in ('val', 'test') and len(data.splits) == 1:
        (only,) = data.splits.values()
        data.splits = {'test': only}
    if data.layout != 'class folders' and (similar := alike(data.classes)):
        data.findings.note(f'{DIFFER}; name them alike if they are one:', *map(repr, similar))
    report_broken(data)
    report_unusual(data)
    checks.check_samples(data, with_shapes)
    if trained is None:
        splits.complete_splits(data)
    else:
        splits.choose_evaluated(data, trained)
    if skip_broken:  # after the division, which does not depend on it
        checks.leave_out(data)
    data.splits = {name: data.splits[name] for name in SPLITS if name in data.splits}
    checks.check_splits(data)
    return data


def _read(source: Path, kind: str | None) -> UserData:
    if not source.exists():
        raise UsageError(f'{source} does not exist. Expected a dataset: {LAYOUTS}.')
    source = folders.unpacked(source)
    if not source.is_dir():
        reader = {'.json': coco.read, '.yaml': yolo.read, '.yml': yolo.read}.get(source.suffix.lower())
        data = reader(source) if reader else None
    else:
        # Any folder of folders with images could be one of classes: that comes last.
        kinds = sorted(_READERS, key=lambda name: (name == 'classification', name != kind))
        data = next((data for name in kinds for reader in _READERS[name] if (data := reader(source))), None)
    if data is None:
        hint = yolo.lacks_names(source) or pairs.lacks_maps(source) if source.is_dir() else ''
        hint = hint or _lacks_layout(source)
        raise UsageError(f'{source} is not a dataset of a known layout: {_contents(source)}. {hint}Expected {LAYOUTS}.')
    return data


def _contents(source: Path) -> str:
    if not source.is_dir():
        known = source.suffix.lower() in ('.json', '.yaml', '.yml')
        return 'it has no names of classes' if known else 'it is neither a folder nor a .json, .yaml or .yml file'
    names = [f'{folder.name}/' for folder in subfolders(source)]
    images = sum(map(is_image, os.listdir(source)))
    names += [f'{images} images'] if images else []
    names += [file.name for file in files(source) if file.suffix.lower() in (*_ARCHIVES, '.csv')]
    return f'it has {", ".join(names[:10])}{", …" if len(names) > 10 else ""}' if names else 'it is empty'


def _lacks_layout(source: Path) -> str:
    """Return what to do about an archive, or a table of labels, or ''."""
    places = [source, *subfolders(source)] if source.is_dir() else []
    present = [file for place in places for file in files(place)] or [source]
    if archive := next((file for file in present if file.suffix.lower() in _ARCHIVES), None):
        return f'{archive} is an archive; unpack it and give the folder that comes out. '
    if table := next((file for file in present if file.suffix.lower() == '.csv'), None):
        return f'Tables such as {table} are not read; for classification, put the images of each class into a folder. '
    return ''
