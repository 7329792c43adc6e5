"""Images and label maps that belong together: by folders, by names, and by lists that divide them."""

import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from mmevm.data.images import report_shared
from mmevm.data.records import (
    Findings,
    Sample,
    Split,
    files,
    images_below,
    is_image,
    is_split_folder,
    plain_name,
    split_folders,
    split_of,
    subfolders,
    text_lines,
    unused_images,
)

# Their order is that in which they are looked for.
IMAGE_FOLDERS = ('images', 'image', 'imgs', 'img', 'jpegimages', 'img_dir')
MASK_FOLDERS = (
    'masks', 'mask', 'labels', 'label', 'annotations', 'annotation', 'ann_dir', 'segmentationclass', 'segmentation',
    'segmentations', 'segmentationclasspng', 'gt', 'seg', 'seg_maps', 'labelmaps', 'annot',
)  # fmt: skip
_SUFFIXES = ('.png', '.bmp', '.tif', '.tiff', '.gif')
MASK_ENDING = re.compile(r'[_-](masks?|labels?|labelids|labeltrainids|seg|segmentation|gt|l)$', re.IGNORECASE)


def find_pairs(path: Path, findings: Findings) -> dict[str, Split]:
    """Find images and their label maps.

    Args:
        path (Path): The dataset's folder.
        findings (Findings): Where images and label maps without a partner are reported.

    Returns:
        dict[str, Split]: By name of the split; empty for a folder of another layout.
    """
    pairs = dict(_folder_pairs(path, findings))
    splits = {split: Split(_pair(*found, findings)) for split, found in pairs.items()}
    if set(splits) == {''}:
        splits = _listed(path, pairs[''][0], splits[''], findings)
    for split, part in splits.items():
        if without := [sample.path for sample in part.samples if not sample.mask]:
            place = pairs[split][1] if split in pairs else path
            findings.problem(f'Images without a label map in {place}:', *without)
            part.samples = [sample for sample in part.samples if sample.mask]
    report_shared(findings, 'label map', ((s.mask or '', s.path) for part in splits.values() for s in part.samples))
    places = {place for found in pairs.values() for place in found}
    if places and (unused := unused_images(path, places)):
        findings.note('Images and label maps outside of the folders that are used, left out:', *unused)
    return splits


def lacks_maps(root: Path) -> str:
    """Return what to do about a folder whose label maps are JPEG files, or ''."""
    for folder in (root, *subfolders(root)):
        if (
            _named(folder, IMAGE_FOLDERS)
            and (found := _named(folder, MASK_FOLDERS))
            and not _named(folder, MASK_FOLDERS, is_mask)
        ):
            return f'The label maps in {found} are JPEG files, whose values are not exact; save them as PNG. '
    return ''


def is_mask(path: str) -> bool:
    """Return whether a file may be a label map: one in a format without loss."""
    return path.lower().endswith(_SUFFIXES)


def _named(folder: Path, names: tuple[str, ...], accept: Callable[[str], bool] = is_image) -> Path | None:
    """Return the subfolder of one of these names that has such files."""
    found = [inner for name in names for inner in subfolders(folder) if inner.name.casefold() == name]
    return next((inner for inner in found if any(map(accept, images_below(inner)))), None)


def _folder_pairs(root: Path, findings: Findings) -> Iterator[tuple[str, tuple[Path, Path]]]:
    """Yield split, folder of images and folder of label maps."""
    images, masks = _named(root, IMAGE_FOLDERS), _named(root, MASK_FOLDERS, is_mask)
    if images and masks:
        of_images, of_masks = (split_folders(folder, findings) for folder in (images, masks))
        matched = {split: (folder, of_masks[split]) for split, folder in of_images.items() if split in of_masks}
        if matched:
            yield from matched.items()
        else:
            yield '', (images, masks)
        return
    for split, folder in split_folders(root, findings).items():
        images, masks = _named(folder, IMAGE_FOLDERS), _named(folder, MASK_FOLDERS, is_mask)
        endings = [f'{folder.name}{mark}{name}' for name in MASK_FOLDERS for mark in ('', '_', '-')]
        beside = _named(root, tuple(ending.casefold() for ending in endings), is_mask)
        if images and masks:
            yield split, (images, masks)
        elif beside:
            yield split, (folder, beside)


def _pair(images: Path, masks: Path, findings: Findings) -> list[Sample]:
    """Match images and label maps by their names, without suffix and endings such as ``_mask``, as far as there are."""
    exact: dict[str, list[str]] = defaultdict(list)
    ended: dict[str, list[str]] = defaultdict(list)
    for mask in filter(is_mask, images_below(masks)):
        name = os.path.splitext(os.path.relpath(mask, masks))[0]
        exact[name].append(mask)
        ended[MASK_ENDING.sub('', name)].append(mask)
    by_name = ended | exact
    samples, unused = [], {mask for found in exact.values() for mask in found}
    for image in images_below(images):
        name = os.path.splitext(os.path.relpath(image, images))[0]
        found = by_name.get(name) or by_name.get(MASK_ENDING.sub('', name)) or []
        if len(found) > 1:
            findings.problem('Images with several label maps; keep one of them:', f'{image}: {", ".join(found)}')
        samples.append(Sample(image, mask=found[0] if found else None))
        unused.difference_update(found)
    if unused:
        findings.note(f'Label maps without an image in {images}, left out:', *sorted(unused))
    return samples


def _listed(root: Path, images: Path, whole: Split, findings: Findings) -> dict[str, Split]:
    """Divide an undivided dataset by lists of names, such as those of Pascal VOC, if they are there."""
    folders = [folder for name in ('ImageSets/Segmentation', 'splits', '.') if (folder := root / name).is_dir()]
    lists = [
        file for folder in folders for file in files(folder) if file.suffix == '.txt' and is_split_folder(file.stem)
    ]
    by_path = {sample.path: sample for sample in whole.samples}
    in_folders = _by_name((os.path.relpath(path, folder), path) for path in by_path for folder in (images, root))
    bare = _by_name((os.path.basename(path), path) for path in by_path)
    parts: dict[str, Split] = {}
    for file in lists:
        named = {line: _named_images(line, in_folders, bare) for line in text_lines(file)}
        samples = [by_path[path] for path in dict.fromkeys(path for found in named.values() for path in found)]
        if not samples:
            continue
        if lost := [line for line, found in named.items() if not found]:
            findings.problem(f'Names in {file} that no image has:', *lost)
        if unclear := [f'{line}: {", ".join(found)}' for line, found in named.items() if len(found) > 1]:
            findings.problem(f'Names in {file} that several images have; add their folder or suffix:', *unclear)
        parts.setdefault(split_of(file.stem) or '', Split(samples))
    used = {sample.path for part in parts.values() for sample in part.samples}
    rest = [path for path in by_path if path not in used]
    if parts and rest:
        findings.note('Images that no list names, left out:', *rest)
    return parts or {'': whole}


def _by_name(names: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """Return the paths of images by their names, with and without suffix."""
    found: dict[str, list[str]] = defaultdict(list)
    for name, path in names:
        for key in (name, os.path.splitext(name)[0]):
            found[key].append(path)
    return found


def _named_images(line: str, in_folders: dict[str, list[str]], bare: dict[str, list[str]]) -> list[str]:
    """Return the images that a line of a list may mean.

    Its folders count as far as they are the dataset's, from the first that is; a name alone, where they are not.

    Args:
        line (str): A name, perhaps with folders, those of another machine among them, and a suffix.
        in_folders (dict[str, list[str]]): Images by name in their folder and in the dataset's.
        bare (dict[str, list[str]]): Images by name without folders.
    """
    words = os.path.normpath(plain_name(line)).split(os.sep)
    tails = [os.sep.join(words[start:]) for start in range(max(len(words) - 1, 1))]
    names = [(in_folders, tail) for tail in tails] + [(bare, words[-1])]
    candidates = (found[key] for found, name in names for key in (name, _stem(name)) if key in found)
    return next(candidates, [])


def _stem(name: str) -> str:
    """Return a name without the suffix of an image; names may have dots."""
    return os.path.splitext(name)[0] if is_image(name) else name
