"""Datasets in YOLO's format: ``data.yaml``, and a text file with boxes or polygons for each image."""

import os
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np
import yaml

from mmevm.data.images import measure
from mmevm.data.lists import note_unused_lists, split_lists
from mmevm.data.moved import find_moved
from mmevm.data.records import (
    SPLITS,
    Findings,
    Sample,
    Split,
    UserData,
    files,
    images_below,
    is_split_folder,
    plain_name,
    repeated,
    split_of,
    subfolders,
    text_lines,
)
from mmevm.data.yolo_labels import is_label, label_path, note_poses, read_labels, require_images, require_labels
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
        read_labels(sample, len(names), keypoints, findings)
    require_labels(data)
    require_images(data)
    if not keypoints:
        note_poses(data)
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
            found += _listed(path, file.parent, split, findings)
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


def _listed(file: Path, root: Path, split: str, findings: Findings) -> list[str]:
    """Return the images of a text file that lists them, perhaps by another machine's paths."""
    lines = list(dict.fromkeys(map(plain_name, text_lines(file))))
    bases = (file.parent, Path.cwd(), file.parent.parent)
    found = {line: path for line in lines for path in (base / line for base in reversed(bases)) if path.is_file()}
    moved: dict[str, str] = {}
    if not any(map(os.path.dirname, map(os.path.normpath, found))):
        lost = [line for line in lines if line not in found]
        moved = find_moved(file, lost, root, split, lambda folder: split not in map(split_of, folder.parts), findings)
    return [os.path.normpath(found.get(line) or moved.get(line) or file.parent / line) for line in lines]


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
    return any(is_label(Path(label_path(image))) for image in images_below(root))


def lacks_names(root: Path) -> str:
    """Return what to do about a folder with label files and no names of classes, or ''."""
    if not _label_files(root):
        return ''
    return 'Its text files look like labels of YOLO; add a data.yaml or classes.txt with the names of the classes. '


def _by_folder(root: Path, findings: Findings) -> dict[str, list[str]]:
    """Return the images by split, of folders or, where these do not divide them, of lists."""
    images = images_below(root)
    found: dict[str, list[str]] = {}
    for image in images:
        parents = Path(image).relative_to(root).parts[:-1]
        split = next((name for part in parents if (name := split_of(part))), '')
        found.setdefault(split, []).append(image)
    if len(found) > 1 and (beside := found.pop('', None)):
        findings.note('Images outside of the folders of splits, left out:', *beside)
    places = [folder for name in ('.', 'splits') if (folder := root / name).is_dir()]
    used: list[Path] = []
    for lists in map(split_lists, places if len(found) == 1 else []):
        heard = Findings()
        parts = {
            split: list(dict.fromkeys(image for file in texts for image in _listed(file, root, split, heard)))
            for split, texts in lists.items()
        }
        parts = {split: part for split, part in parts.items() if any(map(os.path.isfile, part))}
        if parts:
            listed = {image for part in parts.values() for image in part}
            if rest := [image for image in images if image not in listed]:
                findings.note('Images that no list names, left out:', *rest)
            findings.problems |= heard.problems
            found, used = parts, [file for split in parts for file in lists[split]]
            break
    names = {name for image in images for name in (os.path.basename(image), Path(image).stem)}
    if len(found) == 1 or used:
        note_unused_lists(places, used, lambda line: os.path.basename(plain_name(line)) in names, findings)
    return found
