"""Datasets in YOLO's format: ``data.yaml``, and a text file with boxes or polygons for each image."""

import os
from collections.abc import Iterator
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np
import yaml

from mmevm.data.images import measure, report_shared
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
    is_split_folder,
    plain_name,
    repeated,
    split_of,
    subfolders,
    text_lines,
)
from mmevm.data.supervision import formats
from mmevm.errors import UsageError

_YAML = ('.yaml', '.yml')
_OWN_NAMES = ('data', 'dataset')
_NAME_FILES = ('classes.txt', 'obj.names', 'labels.txt', '_darknet.labels')


def read(path: Path) -> UserData | None:
    """Read ``data.yaml``, or the folder that has it; ``None`` for a folder of another layout."""
    settings = _described(path)
    if len(settings) > 1:
        raise UsageError(f'Several files may describe the dataset: {", ".join(map(str, settings))}. Give one of them.')
    findings = Findings()
    if settings:
        file, content = next(iter(settings.items()))
        names = _names(file, content['names'], findings)
        if str(content.get('nc', len(names))) != str(len(names)):
            findings.problem(
                'Another number of classes than names:', f'{file}: nc: {content["nc"]}, {len(names)} names'
            )
        images = {
            split: _images(file, content, split, findings) for split in SPLITS if content.get(_key(content, split))
        }
        root, keypoints = file.parent, _keypoints(content)
    elif path.is_dir() and (listings := _name_files(path)) and _label_files(path):
        names = _names(listings[0], _common_names(listings), findings)
        images, root, keypoints = _by_folder(path, findings), path, 0
    else:
        return None
    splits = {split: Split([Sample(image) for image in paths]) for split, paths in images.items() if paths}
    if 'val' in splits and images['val'] == images.get('train'):
        splits['val'] = splits['train']
        findings.note(
            'data.yaml has the same images for training and validation: the metrics are those of training images'
        )
    data = UserData('detection', 'YOLO', root, names, splits, findings)
    measure(data.samples())
    for sample in data.samples():
        _read_labels(sample, len(names), keypoints, findings)
    _require_labels(data)
    _require_images(data)
    if not keypoints:
        _note_poses(data)
    return data


def _described(path: Path) -> dict[Path, dict[str, Any]]:
    """Return the settings of a file, or of the files in a folder that describe a dataset; others are other tools'."""
    if path.is_file():
        content = _settings(path)
        return {path: content} if content else {}
    found: dict[Path, dict[str, Any]] = {}
    faults: list[UsageError] = []
    for file in (file for file in files(path) if file.suffix.lower() in _YAML):
        is_own = file.stem.casefold() in _OWN_NAMES
        try:
            content = _settings(file)
        except UsageError as error:
            if is_own:
                raise
            faults.append(error)
            continue
        if content and (is_own or _has_split(content)):
            found[file] = content
    if faults and not found and _label_files(path):
        raise faults[0]
    return found


def _has_split(content: dict[str, Any]) -> bool:
    """Return whether a file says where the images of a split are."""
    return any(isinstance(content.get(_key(content, split)), str | list) for split in SPLITS)


def _settings(file: Path) -> dict[str, Any] | None:
    try:
        content = yaml.safe_load(file.read_text(encoding='utf-8-sig'))
    except (yaml.YAMLError, ValueError) as error:
        raise UsageError(f'{file} cannot be read: {error}') from error
    if not isinstance(content, dict):
        return None
    if 'names' not in content and isinstance(content.get('train'), str | list):
        raise UsageError(f"{file} describes a dataset and has no 'names': a list of the classes' names.")
    return content if 'names' in content else None


def _names(file: Path, names: Any, findings: Findings) -> list[str]:
    values = names.values() if isinstance(names, dict) else names if isinstance(names, list) else ()
    if changed := [f'{file}: {value}' for value in values if value is None or isinstance(value, bool)]:
        findings.problem("Class names that YAML takes for true, false or nothing; quote them, like 'yes':", *changed)
    if isinstance(names, dict):
        numbers = {str(number): str(name) for number, name in names.items()}
        if sorted(numbers) != sorted(map(str, range(len(numbers)))):
            findings.problem('Class ids that have no name:', f'{file}: names has the ids {", ".join(numbers)}')
        names = [numbers.get(str(index), f'class {index}') for index in range(len(numbers))]
    if not isinstance(names, list) or not names:
        raise UsageError(f"{file}: 'names' must be a list or a dict of class names, got {names!r}")
    names = [str(name) for name in names]
    for name in repeated(names):
        findings.problem('Classes with the same name:', f'{file}: {name!r}')
    return names


def _key(content: dict[str, Any], split: str) -> str:
    """Return the key of a split's images: its very name before ``valid``, and both before ``val_path``."""
    keys = [key for key, value in content.items() if isinstance(value, str | list) and value]
    keys = [key for key in keys if split_of(str(key)) == split]
    return min(keys, key=lambda key: (key != split, not is_split_folder(str(key))), default=split)


def _keypoints(content: dict[str, Any]) -> int:
    """Return how many values of key points follow a box."""
    shape = content.get('kpt_shape')
    return int(np.prod(shape)) if isinstance(shape, list) else 0


def _images(file: Path, content: dict[str, Any], split: str, findings: Findings) -> list[str]:
    key = _key(content, split)
    entries = content[key] if isinstance(content[key], list) else [content[key]]
    found: list[str] = []
    for entry in map(str, entries):
        places = _resolve(file, plain_name(str(content.get('path') or '')), plain_name(entry))
        if len(places) > 1:
            findings.problem(
                'Entries that may mean a folder inside or outside of the dataset; for the one inside, remove the ../, '
                'else write the whole path:',
                f'{file}: {key}: {entry} is {" or ".join(map(os.path.normpath, places))}',
            )
        path = places[0] if places else None
        if path is None:
            add = findings.note if split == 'test' else findings.problem
            add('Folders that do not exist:', f'{file}: {key}: {entry}')
        elif path.is_dir():
            found += images_below(path)
        else:
            found += _listed(path)
    return list(dict.fromkeys(found))


def _resolve(file: Path, root: str, entry: str) -> list[Path]:
    """Return where an entry of ``data.yaml`` is, twice if Roboflow's ``../`` may be meant and may not.

    Roboflow writes ``../train/images`` for the folder in the dataset's own. Roots of another machine are ignored.
    """
    bases = [file.parent / os.path.expanduser(root), file.parent, file.parent / 'datasets' / root, file.parent.parent]
    short = entry
    while short.startswith('../'):
        short = short[3:]
    inside, literal = (
        next((path for base in bases if (path := base / os.path.expanduser(name)).exists()), None)
        for name in (short, entry)
    )
    if inside and literal:
        return [inside] if inside.samefile(literal) else [inside, literal]
    if found := inside or literal:
        return [found]
    # A file of another machine's paths, of which only the last parts are here: not without the name of the split.
    parts = PureWindowsPath(entry).parts
    last = max((index for index, part in enumerate(parts) if split_of(part)), default=len(parts) - 1)
    candidates = (file.parent.joinpath(*parts[start:]) for start in range(1, last + 1))
    return [path for path in candidates if path.exists()][:1]


def _listed(file: Path) -> list[str]:
    """Return the images of a text file that lists them."""
    lines = map(plain_name, text_lines(file))
    bases = (file.parent, Path.cwd(), file.parent.parent)
    found = [next((base / line for base in bases if (base / line).is_file()), file.parent / line) for line in lines]
    return [os.path.normpath(path) for path in found]


def _name_files(root: Path) -> list[Path]:
    """Return the files with names of classes: of the whole dataset, or of its splits."""
    outer = subfolders(root)
    places = [root, *outer, *(inner for folder in outer for inner in subfolders(folder))]
    return [place / name for place in places for name in _NAME_FILES if (place / name).is_file()]


def _common_names(listings: list[Path]) -> list[str]:
    """Return the names that files list, which have to be the same: they say what the ids of label files mean."""
    names = text_lines(listings[0])
    for listing in listings[1:]:
        if (others := text_lines(listing)) != names:
            raise UsageError(
                f'{listings[0]} and {listing} name different classes, or in another order: {", ".join(names)}; '
                f'{", ".join(others)}. Label files have one meaning only; number the classes alike in all of them.'
            )
    return names


def _label_files(root: Path) -> bool:
    """Return whether images have text files with at least five numbers a line."""
    return any(_is_label(Path(label_path(image))) for image in images_below(root))


def lacks_names(root: Path) -> str:
    """Return what to do about a folder with label files and no names of classes, or ''."""
    if not _label_files(root):
        return ''
    return 'Its text files look like labels of YOLO; add a data.yaml or classes.txt with the names of the classes. '


def _is_label(path: Path) -> bool:
    if not path.is_file():
        return False
    words = path.read_text(encoding='utf-8', errors='replace').split('\n', 1)[0].split()
    return len(words) >= 5 and all(word.replace('.', '', 1).replace('-', '').isdigit() for word in words[:5])


def _by_folder(root: Path, findings: Findings) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for image in images_below(root):
        parents = Path(image).relative_to(root).parts[:-1]
        split = next((name for part in parents if (name := split_of(part))), '')
        found.setdefault(split, []).append(image)
    if len(found) > 1 and (beside := found.pop('', None)):
        findings.note('Images outside of the folders of splits, left out:', *beside)
    return found


def label_path(image: str) -> str:
    """Return the text file of an image: in ``labels`` where the image is in ``images``, else beside it."""
    head, found, tail = image.rpartition(f'{os.sep}images{os.sep}')
    beside = os.path.splitext(image)[0] + '.txt'
    if not found:
        return beside
    apart = os.path.splitext(f'{head}{os.sep}labels{os.sep}{tail}')[0] + '.txt'
    return apart if os.path.isfile(apart) or not os.path.isfile(beside) else beside


def _read_labels(sample: Sample, count: int, keypoints: int, findings: Findings) -> None:
    path = label_path(sample.path)
    if sample.size is None or not os.path.isfile(path):
        return
    try:
        with open(path, encoding='utf-8-sig') as file:
            lines = [(number, line.split()) for number, line in enumerate(file, 1) if line.strip()]
    except ValueError as error:
        findings.problem('Label files that cannot be read:', f'{path}: not a text file, {error}')
        return
    sample.source = path
    for number, words in lines:
        words = words[:5] if keypoints and len(words) == 5 + keypoints else words
        source = f'{path}, line {number}'
        thing = _thing(words, sample.size, source, findings)
        if thing is None:
            continue
        if 0 <= thing.category < count:
            sample.things.append(thing)
        else:
            findings.problem(
                f'Class ids out of range (data.yaml names the ids 0 to {count - 1}):', f'{source}: {thing.category}'
            )


def _thing(words: list[str], size: tuple[int, int], source: str, findings: Findings) -> Thing | None:
    """Return the object of a line, or ``None`` if it cannot be read."""
    try:
        found = formats().yolo_annotations_to_detections([' '.join(words)], size, with_masks=False)
    except ValueError as error:
        findings.problem('Lines of label files that cannot be read:', f'{source}: {error}')
        return None
    x1, y1, x2, y2 = map(float, found.xyxy[0])
    return Thing(int(found.class_id[0]), (x1, y1, x2 - x1, y2 - y1), _polygons(words, size), source=source)


def _polygons(words: list[str], size: tuple[int, int]) -> list[list[float]] | None:
    if len(words) <= 6:  # a box and perhaps a score
        return None
    values = np.array(words[1 : 1 + (len(words) - 1) // 2 * 2], dtype=float).reshape(-1, 2)
    return [(values * size).round(2).ravel().tolist()]


def _require_labels(data: UserData) -> None:
    for split, part in data.splits.items():
        readable = [sample for sample in part.samples if not sample.fault]
        without = [sample.path for sample in readable if not os.path.isfile(label_path(sample.path))]
        if readable and len(without) == len(readable) and split != 'test':
            example = f'{without[0]}: expected {label_path(without[0])}'
            data.findings.problem(f'No image of {split or "the dataset"} has a label file:', example)
        elif without:
            data.findings.note('Images without a label file, taken to show no object:', *without)


def _require_images(data: UserData) -> None:
    """Report label files of several images, and those of none in the folders where images have theirs."""
    labels = [(label_path(sample.path), sample.path) for sample in data.samples()]
    report_shared(data.findings, 'label file', (pair for pair in labels if os.path.isfile(pair[0])))
    tops: dict[str, str] = {}
    for path, image in labels:
        top, image_top = os.path.dirname(path), os.path.dirname(image)
        while top != image_top and os.path.basename(top) == os.path.basename(image_top):
            top, image_top = os.path.dirname(top), os.path.dirname(image_top)
        tops[top] = image_top
    if lost := sorted(path for top, image_top in tops.items() for path in _orphans(top, image_top)):
        data.findings.note('Label files without an image, left out:', *lost)


def _orphans(top: str, image_top: str) -> Iterator[str]:
    """Yield the label files in a folder that have no image; one apart from the images is searched with all in it."""
    for folder, _, names in os.walk(top):
        parent = os.path.normpath(os.path.join(image_top, os.path.relpath(folder, top)))
        present = os.listdir(parent) if os.path.isdir(parent) else []
        stems = {os.path.splitext(name)[0] for name in present if is_image(name)}
        texts = (os.path.join(folder, name) for name in names if name.endswith('.txt') and name[:-4] not in stems)
        yield from (path for path in texts if _is_label(Path(path)))
        if top == image_top:
            return


def _note_poses(data: UserData) -> None:
    """Note polygons that are as likely boxes with key points: all as long, and with points in such a box."""
    things = [(thing, sample.size) for sample in data.samples() for thing in sample.things]
    if len({len(thing.shape[0]) if thing.shape else 0 for thing, _ in things}) != 1 or not things[0][0].shape:
        return
    values = np.array([(np.reshape(thing.shape[0], (-1, 2)) / size).ravel() for thing, size in things])
    centre, size, points = values[:, None, :2], values[:, None, 2:4], values[:, 4:]
    for width in (2, 3):  # the third value is whether a point is visible; of an odd number of values one is left out
        if points.shape[1] % width == 1:
            continue
        places = np.stack([points[:, axis::width] for axis in (0, 1)], axis=-1)
        if ((abs(places - centre) <= size / 2 + 0.01).all(-1) | (places == 0).all(-1)).all():
            data.findings.note(
                'Polygons that may be boxes with key points; if so, data.yaml has to tell, like kpt_shape: [17, 3]:',
                things[0][0].source,
            )
            return
