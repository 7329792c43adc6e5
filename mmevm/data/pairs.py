"""Images and label maps that belong together: by folders, by names, and by lists that divide them."""

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

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
)

# Their order is that in which they are looked for.
IMAGE_FOLDERS = ('images', 'image', 'imgs', 'img', 'jpegimages', 'img_dir')
MASK_FOLDERS = (
    'masks', 'mask', 'labels', 'label', 'annotations', 'annotation', 'ann_dir', 'segmentationclass', 'segmentation',
    'segmentations', 'gt', 'seg', 'seg_maps', 'labelmaps',
)  # fmt: skip
_SUFFIXES = ('.png', '.bmp', '.tif', '.tiff', '.gif')
_MASK_ENDING = re.compile(r'[_-](masks?|labels?|labelids|labeltrainids|seg|segmentation|gt|l)$', re.IGNORECASE)


def find_pairs(path: Path, findings: Findings) -> dict[str, Split]:
    """Find images and their label maps.

    Args:
        path (Path): The dataset's folder.
        findings (Findings): Where images and label maps without a partner are reported.

    Returns:
        dict[str, Split]: By name of the split; empty for a folder of another layout.
    """
    pairs = dict(_folder_pairs(path, findings))
    splits = _listed(path, {split: Split(_pair(*found, findings)) for split, found in pairs.items()}, findings)
    for split, part in splits.items():
        if without := [sample.path for sample in part.samples if not sample.mask]:
            place = pairs[split][1] if split in pairs else path
            findings.problem(f'Images without a label map in {place}:', *without)
            part.samples = [sample for sample in part.samples if sample.mask]
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
        endings = [f'{folder.name}{mark}{name}' for name in MASK_FOLDERS + ('annot',) for mark in ('', '_', '-')]
        beside = _named(root, tuple(ending.casefold() for ending in endings), is_mask)
        if images and masks:
            yield split, (images, masks)
        elif beside:
            yield split, (folder, beside)


def _pair(images: Path, masks: Path, findings: Findings) -> list[Sample]:
    """Match images and label maps by their names, without suffix and endings such as ``_mask``, as far as there are."""
    by_name: dict[str, str] = {}
    for mask in filter(is_mask, images_below(masks)):
        name = os.path.splitext(os.path.relpath(mask, masks))[0]
        by_name[name] = mask
        by_name.setdefault(_MASK_ENDING.sub('', name), mask)
    samples = []
    for image in images_below(images):
        name = os.path.splitext(os.path.relpath(image, images))[0]
        samples.append(Sample(image, mask=by_name.get(name) or by_name.get(_MASK_ENDING.sub('', name))))
    used = {str(sample.mask) for sample in samples}
    if unused := sorted(set(by_name.values()) - used):
        findings.note(f'Label maps without an image in {images}, left out:', *unused)
    return samples


def _listed(root: Path, splits: dict[str, Split], findings: Findings) -> dict[str, Split]:
    """Divide an undivided dataset by lists of names, such as those of Pascal VOC, if they are there."""
    folders = [folder for name in ('ImageSets/Segmentation', 'splits', '.') if (folder := root / name).is_dir()]
    lists = [
        file for folder in folders for file in files(folder) if file.suffix == '.txt' and is_split_folder(file.stem)
    ]
    if set(splits) != {''} or not lists:
        return splits
    by_stem = {Path(sample.path).stem: sample for sample in splits[''].samples}
    parts: dict[str, Split] = {}
    for file in lists:
        names = {line: _stem(line) for line in text_lines(file)}
        samples = [by_stem[stem] for stem in dict.fromkeys(names.values()) if stem in by_stem]
        if not samples:
            continue
        if lost := [line for line, stem in names.items() if stem not in by_stem]:
            findings.problem(f'Names in {file} that no image has:', *lost)
        parts.setdefault(split_of(file.stem) or '', Split(samples))
    used = {sample.path for part in parts.values() for sample in part.samples}
    rest = [sample.path for sample in splits[''].samples if sample.path not in used]
    if parts and rest:
        findings.note('Images that no list names, left out:', *rest)
    return parts or splits


def _stem(line: str) -> str:
    """Return the name of an image in a list, without its folders and its suffix; names may have dots."""
    name = os.path.basename(plain_name(line))
    return os.path.splitext(name)[0] if is_image(name) else name
