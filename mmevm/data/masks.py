"""Datasets for semantic segmentation: images, and label maps of the same names."""

import os
import re
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from mmevm.data.class_files import class_file, report_differing, stated_classes, without_comment
from mmevm.data.images import measure
from mmevm.data.pairs import find_pairs
from mmevm.data.records import Findings, Sample, UserData

IGNORED = 255
"""The value of pixels without a class, in the label maps that are trained on."""

_BACKGROUND = re.compile(r'(_+)?(background|bg|void|unlabell?ed|none|other|ignore)(_+)?', re.IGNORECASE)
_MAX_VALUES = 256
# Of label maps with two classes and blurred edges: the share of pixels near the two values; at most, the share of
# others that lie in areas of one value; and how many label maps are looked at for these.
_SHARE, _FLAT, _MAPS = 0.9, 0.1, 20


def read(path: Path) -> UserData | None:
    """Read a folder of images and label maps; ``None`` for a folder of another layout."""
    if path.is_file():
        return None
    findings = Findings()
    splits = find_pairs(path, findings)
    if not splits:
        return None
    data = UserData('segmentation', 'images and label maps', path, [], splits, findings)
    measure(data.samples())
    _read_values(data)
    _name_classes(data)
    return data


def _stored(path: str) -> tuple[str, np.ndarray, np.ndarray | None]:
    """Return what the values of a label map are, the values, int64 [H, W], and the colours of greys or indices."""
    with Image.open(path) as image:
        if image.mode.startswith('I'):
            return 'numbers', np.asarray(image).astype(np.int64), None
        if image.mode == 'P':
            entries, values = np.zeros((256, 3), np.int64), image.getpalette('RGB') or []
            entries.flat[: len(values)] = values
            return 'indices', np.asarray(image).astype(np.int64), _packed(entries)
        pixels = np.asarray(image.convert('L' if image.mode in ('1', 'L', 'LA') else 'RGB')).astype(np.int64)
    if pixels.ndim == 3 and (pixels != pixels[..., :1]).any():
        return 'colours', _packed(pixels), None
    return 'greys', pixels if pixels.ndim == 2 else pixels[..., 0], _packed(np.arange(256)[:, None].repeat(3, axis=1))


def _packed(colours: np.ndarray) -> np.ndarray:
    """Return red, green and blue [..., 3] as 0xRRGGBB."""
    return colours[..., 0] << 16 | colours[..., 1] << 8 | colours[..., 2]


def read_mask(path: str, colours: bool = False) -> np.ndarray:
    """Return the values of a label map, int64 [H, W].

    Args:
        path (str): An image.
        colours (bool): Whether the values are colours, 0xRRGGBB; else they are greys, or indices of a palette.
    """
    _, values, table = _stored(path)
    return table[values] if colours and table is not None else values


def class_ids(labels: np.ndarray, values: dict[int, int]) -> np.ndarray:
    """Return the class ids of a label map, uint8 [H, W]; 255 for pixels without a class.

    Args:
        labels (ndarray[H, W]): Its values, int64.
        values (dict[int, int]): Class by value.
    """
    found, inverse = np.unique(labels, return_inverse=True)
    table = np.array([values.get(value, IGNORED) for value in found.tolist()], np.uint8)
    return table[inverse].reshape(labels.shape)


def _count_values(sample: Sample) -> tuple[str, dict[int, int]]:
    """Count the values of a label map as stored; return what they are, and the colours of greys or indices."""
    try:
        kind, labels, table = _stored(str(sample.mask))
    except Exception as error:  # whatever Pillow raises for bytes that it does not expect
        sample.fault = f'its label map {sample.mask}: {error}'
        return '', {}
    if sample.size and labels.shape != sample.size[::-1]:
        height, width = labels.shape
        sample.stated = (width, height)
        sample.source = str(sample.mask)
    values, counts = np.unique(labels, return_counts=True)
    sample.values = dict(zip(values.tolist(), counts.tolist(), strict=True))
    return kind, {} if table is None else dict(zip(values.tolist(), table[values].tolist(), strict=True))


def _read_values(data: UserData) -> None:
    """Count the values of all label maps. They are colours if one map is not grey, or palettes or a file say so."""
    usable = [sample for sample in data.samples() if sample.mask and not sample.fault]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = list(pool.map(_count_values, usable))
    data.colours = any(kind == 'colours' for kind, _ in found) or _palettes_differ(found) or _names_colours(data, found)
    if data.colours:
        for sample, (_, colours) in zip(usable, found, strict=True):
            sample.values = _recoloured(sample.values, colours)


def _recoloured(values: dict[int, int], colours: dict[int, int]) -> dict[int, int]:
    """Return pixels by colour; entries of a palette may have the same one."""
    counts: Counter[int] = Counter()
    for value, count in values.items():
        counts[colours.get(value, value)] += count
    return dict(counts)


def _palettes_differ(found: list[tuple[str, dict[int, int]]]) -> bool:
    palette: dict[int, int] = {}
    return any(
        palette.setdefault(index, colour) != colour
        for kind, colours in found
        if kind == 'indices'
        for index, colour in colours.items()
    )


def _names_colours(data: UserData, found: list[tuple[str, dict[int, int]]]) -> bool:
    """Return whether a file of classes names colours, and the label maps have these rather than class ids."""
    file = class_file(data.root)
    _, stated, are_colours = stated_classes(file) if file else ([], None, False)
    if not are_colours or stated is None:
        return False
    of_palettes = {colour for kind, colours in found if kind == 'indices' for colour in colours.values()}
    if of_palettes:
        return not of_palettes.isdisjoint(stated)
    of_greys = {colour for _, colours in found for colour in colours.values()}
    return bool(of_greys) and of_greys <= stated.keys()


def _name_classes(data: UserData) -> None:
    """Decide which class every value of the label maps is."""
    maps = Counter(value for sample in data.samples() for value in sample.values)
    used = sorted(maps)
    file = class_file(data.root)
    if file is None and (why := _why_no_classes(data, used)):
        many = max(data.samples(), key=lambda sample: len(sample.values))
        data.findings.problem(
            f'The label maps have {len(used)} different values; {why}:', f'{many.mask}: {len(many.values)} values'
        )
        return
    if file is None:
        # A map of 0 and 255 has two classes; otherwise, 255 marks what has none.
        kept = [value for value in used if used == [0, IGNORED] or value not in _ignored(data, used)]
        data.classes = [f'#{value:06x}' if data.colours else str(value) for value in kept]
        data.values = {value: index for index, value in enumerate(kept)}
    else:
        names, stated, _ = stated_classes(file)
        if stated is None:
            names = without_comment(names, max(set(used) - _ignored(data, used), default=0))
        data.classes, data.values = names, _by_rank(data, maps, names) if stated is None else stated
        if stated is None and data.colours and data.values:
            pairs = [f'#{value:06x} is {data.classes[index]!r}' for value, index in data.values.items()]
            data.findings.note(
                f"{file} names no colours: its names were given in ascending order of the colours' values:", *pairs
            )
        _report_names(data, file)
        report_differing(data.root, data.findings)
    if len(data.classes) > IGNORED:
        data.findings.problem(
            f'A label map has at most {IGNORED} classes, because {IGNORED} marks pixels without one; there are:',
            f'{len(data.classes)} in {file or data.root}',
        )
    if len(data.classes) < 2 and used:
        where = f' in {file}' if file else ''
        if not file and _ignored(data, used).intersection(used):
            where = '; 255 is none unless classes.json names it'
        data.findings.problem(
            'A segmentor needs two classes or more, of which the background may be one; there are:',
            f'{data.classes or "none"}{where}',
        )
    elif len(labelled := {data.values[value] for value in used if value in data.values}) == 1:
        without = ', '.join(map(str, sorted(set(used) - data.values.keys())))
        data.findings.problem(
            'A segmentor needs pixels of two classes or more, and all that have a class are of one:',
            f'{data.classes[labelled.pop()]!r}{f"; classes.json names no value {without}" if without else ""}',
        )
    _report_unknown(data)


def _why_no_classes(data: UserData, used: list[int]) -> str:
    """Return why the values of label maps are not classes, or ''."""
    if len(used) > _MAX_VALUES:
        return 'they are photographs or colours that blur, not classes'
    if not data.colours and _are_blurred(data, used):
        return (
            f'nearly all pixels have {used[0]} or {used[-1]}, and the others are blurred edges, not classes. Save the '
            'label maps without smoothing and as PNG, or name the values in classes.json'
        )
    return ''


def _are_blurred(data: UserData, used: list[int]) -> bool:
    """Return whether grey values are two classes with blurred edges, rather than a class each.

    Blurred edges have values all over a wide range, few pixels, and no area of one value. Values that count on without
    a hole are classes, unless they fill the range.
    """
    body = [value for value in used if value != IGNORED]
    if len(used) < 5 or used[-1] - used[0] < 128 or (len(body) < 200 and body[-1] - body[0] < len(body)):
        return False
    low, high = used[0], used[-1]
    middle, margin = (low + high) / 2, (high - low) // 16  # JPEG changes areas of the two, by less than the margin
    between = {value for value in used if low + margin < value < high - margin}
    fewest = 1 if between else 2  # values beside either; some datasets have 254 for something other than 255
    if not used[fewest] < middle < used[-1 - fewest]:
        return False
    pixels = Counter[int]()
    for sample in data.samples():
        pixels.update(sample.values)
    if sum(pixels[value] for value in between) > (1 - _SHARE) * pixels.total():
        return False
    maps = [str(sample.mask) for sample in data.samples() if sample.values.keys() & between][:_MAPS]
    count = flat = 0
    for path in maps:
        labels = read_mask(path)
        inner = np.isin(labels, list(between))[1:-1, 1:-1]
        count += inner.sum()
        flat += (inner & _is_flat(labels)).sum()
    return bool(flat <= _FLAT * count)


def _is_flat(labels: np.ndarray) -> np.ndarray:
    """Return of every pixel but those at the border whether all around it have its value."""
    height, width = labels.shape
    inner = labels[1:-1, 1:-1]
    around = [labels[y : height - 2 + y, x : width - 2 + x] for y in range(3) for x in range(3)]
    return np.logical_and.reduce([inner == other for other in around])


def _report_names(data: UserData, file: Path) -> None:
    for index, name in enumerate(data.classes):
        if name in data.classes[:index]:
            data.findings.problem('Classes with the same name:', f'{file}: {name!r}')


def _ignored(data: UserData, used: Iterable[int]) -> set[int]:
    """Return the values that mark pixels without a class; in label maps of colours, 255 is blue."""
    return set() if data.colours or max(used, default=0) > IGNORED else {IGNORED}


def _by_rank(data: UserData, used: Counter[int], names: list[str]) -> dict[int, int]:
    """Return the class of every value, where a file has names alone.

    Values count from 0; or from 1, where 0 are pixels without a class; or they are as many as the names. One label map
    with a value that is one too high does not make all others count from 1, nor does a background with a name.

    Args:
        data (UserData): The dataset.
        used (Counter[int]): Label maps by value.
        names (list[str]): Names by class.
    """
    count, from_zero = len(names), {value: value for value in range(len(names))}
    plain = [value for value in used if value not in _ignored(data, used)]
    if sorted(used) == [0, IGNORED] and count == 2:
        return {0: 0, IGNORED: 1}
    if not plain or max(plain) < count:
        return from_zero
    is_usual = used[count] > 1 or max(used.values()) == 1
    if max(plain) == count and (0 not in used or (is_usual and not _BACKGROUND.fullmatch(names[0]))):
        return {value + 1: value for value in range(count)}
    if len(used) == count:
        return {value: index for index, value in enumerate(sorted(used))}
    return from_zero


def _report_unknown(data: UserData) -> None:
    used = sorted({value for sample in data.samples() for value in sample.values})
    ignored = _ignored(data, used) | ({0} if data.values.get(1) == 0 else set())
    if without := sorted(ignored.intersection(used) - data.values.keys()):
        data.findings.note(f'Pixels of the value {" and ".join(map(str, without))} have no class and are ignored')
    for sample in data.samples():
        unknown = sorted(sample.values.keys() - data.values.keys() - ignored)
        if unknown and data.values:
            texts = [f'#{value:06x}' if data.colours else str(value) for value in unknown[:8]]
            shown = ', '.join(texts) + (', …' if len(unknown) > 8 else '')
            data.findings.problem(
                f'Values of label maps beyond the {len(data.classes)} classes:', f'{sample.mask}: {shown}'
            )
    blank = Counter(
        sample.mask for sample in data.samples() if sample.values and not sample.values.keys() & data.values.keys()
    )
    if blank:
        data.findings.note('Label maps without a pixel of any class:', *map(str, blank))


def is_direct(data: UserData) -> bool:
    """Return whether the label maps can be trained on as they are: class ids, with 255 for pixels without a class."""
    return _are_ids(data, 0, {IGNORED})


def counts_from_one(data: UserData) -> bool:
    """Return whether the label maps are class ids from 1, with 0 for pixels without a class."""
    # Subtracting one, MMSegmentation would ignore the class of 255.
    return 0 < len(data.classes) < IGNORED and bool(data.values) and _are_ids(data, 1, {0, IGNORED})


def _are_ids(data: UserData, first: int, without_class: set[int]) -> bool:
    """Return whether values are class ids that count from ``first``, and all others are ``without_class``."""
    others = {value for sample in data.samples() for value in sample.values} - data.values.keys()
    are_ids = all(value == index + first for value, index in data.values.items())
    return are_ids and others <= without_class and _are_plain(data)


def _are_plain(data: UserData) -> bool:
    """Return whether all label maps have one channel of bytes, whose values MMSegmentation reads as they are."""
    for sample in data.samples():
        if sample.mask:
            with Image.open(sample.mask) as image:
                if image.mode not in ('L', 'P'):
                    return False
    return True
