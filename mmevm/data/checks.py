"""Checks of a dataset that has been read: boxes, sizes, splits, and what a config needs of them."""

import os

from mmevm.data.images import is_turned
from mmevm.data.records import Sample, Split, Thing, UserData, repeated
from mmevm.data.shapes import Box, is_number, runs, shape_box
from mmevm.data.splits import categories

#: How far a box may stick out of its image, in pixels and as a share of the edge, before it counts as misplaced.
_TOLERANCE = 2.0, 0.02
_NO_AREA = 'Boxes of no area:'
_OUTSIDE = 'Boxes outside the image:'
_LEAVING = 'Boxes that reach beyond the image:'
_FEW_POINTS = 'Polygons with fewer than three points:'
_NO_POLYGONS = 'Polygons that are not lists of numbers, each a list x, y, x, y, … of its own:'
_RUNS = 'Run lengths that do not fit the image:'
_NO_SHAPE = 'Polygons and run lengths that cover nothing:'
_SHAPE_OUTSIDE = 'Polygons outside the image:'
_APART = 'Polygons and run lengths apart from the box of their object; both must be in pixels:'
_FRACTIONS = 'Every box lies within the first pixel: its values are fractions of the image, and must be pixels:'
_TINY = 'Boxes narrower or lower than a pixel, which MMDetection does not train on:'
_SIZES = 'Images of another size than their annotations say:'


def check_samples(data: UserData, with_shapes: bool = True) -> None:
    """Check every image's annotations; objects that cannot be used are marked.

    Args:
        data (UserData): The dataset.
        with_shapes (bool): Whether polygons and run lengths are needed; if not, those that cannot be used are dropped.
    """
    for sample in data.samples():
        if sample.size and sample.stated and sample.size != sample.stated:
            data.findings.problem(_SIZES, _size_fault(sample))
            continue
        for thing in sample.things:
            _check_thing(data, sample, thing, with_shapes)
    things = [thing for sample in data.samples() for thing in sample.things]
    tiny = [thing.source for thing in things if 0 < min(thing.box[2:]) < 1]
    if things and all(max(thing.box) <= 1 for thing in things):
        data.findings.problem(_FRACTIONS, things[0].source)
    elif tiny:
        data.findings.note(_TINY, *tiny)
    if twins := [source for sample in data.samples() for source in _twins(sample)]:
        data.findings.note('Objects that are annotated more than once:', *twins)


def _twins(sample: Sample) -> list[str]:
    """Return where objects of an image are annotated that have the class, box and shape of one before."""
    seen: set[str] = set()
    found = []
    for thing in sample.things:
        key = repr((thing.category, thing.box, thing.shape))
        if key in seen:
            found.append(thing.source)
        seen.add(key)
    return found


def _size_fault(sample: Sample) -> str:
    (width, height), (stated_width, stated_height) = sample.size or (0, 0), sample.stated or (0, 0)
    turned = (stated_height, stated_width) == (width, height) and is_turned(sample.path)
    why = (
        "; its EXIF orientation turns the image, and OpenMMLab's loaders follow it: annotate it as it is shown, "
        'or remove the orientation from the file'
        if turned
        else ''
    )
    stated = f'{stated_width} x {stated_height} in {sample.source or "its annotations"}'
    return f'{sample.path}: {width} x {height}, {stated}{why}'


def _check_thing(data: UserData, sample: Sample, thing: Thing, with_shapes: bool) -> None:
    size = sample.size or sample.stated
    of_box = _box_fault(thing, size)
    fault = of_box or _shape_fault(thing, size)
    if fault is None:
        return
    box = ', '.join(f'{value:.6g}' for value in thing.box)
    where = f' in {size[0]} x {size[1]}' if size else ''
    text = f'{thing.source} ({os.path.basename(sample.path)}): x, y, w, h = {box}{where}'
    if of_box or with_shapes:
        thing.faulty = True
        data.findings.fault(fault, text)
    else:
        thing.shape = None
        data.findings.note(f'Dropped, as only boxes are needed here. {fault}', text)


def _shape_fault(thing: Thing, size: tuple[int, int] | None) -> str | None:
    shape = thing.shape
    if not shape:
        return None
    if isinstance(shape, dict):
        if runs(shape) is None or (size and tuple(shape['size']) != size[::-1]):
            return _RUNS
    elif not isinstance(shape, list) or not all(isinstance(polygon, list) for polygon in shape):
        return _NO_POLYGONS
    elif not all(is_number(value) for polygon in shape for value in polygon):
        return _NO_POLYGONS
    elif not all(len(polygon) >= 6 and not len(polygon) % 2 for polygon in shape):
        return _FEW_POINTS
    box = shape_box(shape)
    if box is None:
        return _NO_SHAPE
    if size and not _meet(box, (0, 0, *size)):
        return _SHAPE_OUTSIDE
    in_fractions = max(box[0] + box[2], box[1] + box[3]) <= 1 < max(thing.box[2:]) - 1
    return _APART if in_fractions or not _meet(box, thing.box, _TOLERANCE[0]) else None


def _meet(one: Box, other: Box, tolerance: float = 0.0) -> bool:
    """Return whether boxes overlap, or are apart by less than a tolerance."""
    return all(
        one[axis] < other[axis] + other[axis + 2] + tolerance and other[axis] < one[axis] + one[axis + 2] + tolerance
        for axis in (0, 1)
    )


def _box_fault(thing: Thing, size: tuple[int, int] | None) -> str | None:
    x, y, w, h = thing.box
    if w <= 0 or h <= 0:
        return _NO_AREA
    if size is None:
        return None
    width, height = size
    if x >= width or y >= height or x + w <= 0 or y + h <= 0:
        return _OUTSIDE
    pixels, share = _TOLERANCE
    beyond = (max(-x, x + w - width), max(-y, y + h - height))
    return _LEAVING if any(b > max(pixels, share * edge) for b, edge in zip(beyond, size, strict=True)) else None


def leave_out(data: UserData) -> None:
    """Remove images and objects that cannot be used, and note them instead of refusing them."""
    for split in data.splits.values():
        kept = [sample for sample in split.samples if not sample.fault]
        things = sum(thing.faulty for sample in kept for thing in sample.things)
        if len(kept) < len(split.samples) or things:
            split.annotations = ''
        split.samples[:] = kept
        for sample in kept:
            sample.things[:] = [thing for thing in sample.things if not thing.faulty]
    for heading, items in data.findings.faults.items():
        data.findings.note(f'Left out. {heading}', *items)
    data.findings.faults.clear()


def check_splits(data: UserData) -> None:
    """Report splits without images, images of several splits, and classes that a split has no example of."""
    different = {id(split): split for split in data.splits.values()}  # one may stand in for another
    for path in repeated(sample.path for split in different.values() for sample in split.samples):
        data.findings.problem('Images that are listed more than once:', path)
    for paths in _shared(list(different.values())):
        data.findings.problem('Images that are listed more than once:', ' and '.join(paths))
    for name, split in data.splits.items():
        if not split.samples:
            data.findings.problem(f'The split {name} has no image:', f'{data.root} ({data.layout})')
            continue
        found = set().union(*(categories(sample, data.values) for sample in split.samples))
        missing = [label for index, label in enumerate(data.classes) if index not in found]
        if len(missing) == len(data.classes):
            crowded = any(sample.things for sample in split.samples)
            crowds = ', but crowds (COCO: iscrowd or ignore, Pascal VOC: difficult) or boxes below a pixel'
            data.findings.problem(
                f'The split {name} has no object of any class{crowds if crowded else ""}:', _where(data, split)
            )
        elif missing:
            data.findings.note(f'The split {name} has no example of these classes:', *map(repr, missing))


def _shared(splits: list[Split]) -> list[list[str]]:
    """Return images of several splits with different paths: links lead from one to another."""
    folders: dict[str, str] = {}
    found: dict[str, dict[str, int]] = {}
    for index, split in enumerate(splits):
        for path in (sample.path for sample in split.samples):
            folder, name = os.path.split(path)
            if folder not in folders:
                folders[folder] = os.path.realpath(folder)
            real = os.path.realpath(path) if os.path.islink(path) else os.path.join(folders[folder], name)
            found.setdefault(real, {})[path] = index
    return [list(paths) for paths in found.values() if len(set(paths.values())) > 1]


def _where(data: UserData, split: Split) -> str:
    return split.annotations or next((sample.source for sample in split.samples if sample.source), str(data.root))


def check_batch(data: UserData, batch: int, drops_last: bool, times: int = 1) -> None:
    """Report a training split that does not fill a batch, repeated so many times in an epoch."""
    count = len(data.splits['train'].samples) if 'train' in data.splits else 0
    if 0 < count * times < batch:
        text = f'The training split has {count} images, fewer than a batch of {batch}'
        advice = f'--cfg-options train_dataloader.batch_size={count}'
        if drops_last:
            data.findings.problem(f'{text}, which drop_last leaves out:', f'{data.root}; {advice}')
        else:
            data.findings.note(f'{text}; every batch will be smaller, or repeat images ({advice})')


def check_small_images(data: UserData, min_size: int) -> None:
    """Note training images that ``filter_cfg.min_size`` of a detection config leaves out."""
    samples = data.splits['train'].samples if 'train' in data.splits else []
    small = [sample.path for sample in samples if sample.size and min(sample.size) < min_size]
    if samples and len(small) == len(samples):
        data.findings.problem(
            f'Every training image is smaller than filter_cfg.min_size={min_size}, such as:', small[0]
        )
    elif small:
        data.findings.note(f'Training images smaller than filter_cfg.min_size={min_size}, left out:', *small)


def check_shapes(data: UserData) -> None:
    """Report objects without polygons, which a model of masks cannot be trained on; crowds get that of their box."""
    for split in data.splits.values():
        for thing in (thing for sample in split.samples for thing in sample.things if thing.crowd and not thing.shape):
            x, y, w, h = thing.box
            thing.shape, split.annotations = [[x, y, x + w, y, x + w, y + h, x, y + h]], ''
    things = [thing for sample in data.samples() for thing in sample.things if not thing.crowd]
    boxes = [thing for thing in things if not thing.shape]
    if boxes and len(boxes) == len(things):
        data.findings.problem(
            'The config trains masks, which needs polygons, and the annotations are boxes only. Annotate polygons, or '
            'take a config for boxes, such as configs/rtmdet_evm_t.py:',
            boxes[0].source,
        )
        return
    for thing in boxes:
        thing.faulty = True
        data.findings.fault('Objects without polygons, which the config needs:', thing.source)
