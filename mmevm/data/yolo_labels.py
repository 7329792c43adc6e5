"""Label files of YOLO's format: a line with a box or a polygon for each object of an image."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from mmevm.data.images import report_shared
from mmevm.data.records import Findings, Sample, Thing, UserData, is_image
from mmevm.data.supervision import formats


def label_path(image: str) -> str:
    """Return the text file of an image: in ``labels`` where the image is in ``images``, else beside it."""
    head, found, tail = image.rpartition(f'{os.sep}images{os.sep}')
    beside = os.path.splitext(image)[0] + '.txt'
    if not found:
        return beside
    apart = os.path.splitext(f'{head}{os.sep}labels{os.sep}{tail}')[0] + '.txt'
    return apart if os.path.isfile(apart) or not os.path.isfile(beside) else beside


def is_label(path: Path) -> bool:
    """Return whether a file begins with five numbers, as a line of labels does."""
    if not path.is_file():
        return False
    words = path.read_text(encoding='utf-8', errors='replace').split('\n', 1)[0].split()
    return len(words) >= 5 and all(word.replace('.', '', 1).replace('-', '').isdigit() for word in words[:5])


def read_labels(sample: Sample, count: int, keypoints: int, findings: Findings) -> None:
    """Add to a sample the objects of its label file.

    Args:
        sample (Sample): With the size of its image.
        count (int): Number of classes.
        keypoints (int): Values of key points that follow a box, or 0.
        findings (Findings): Gets what cannot be read and ids that have no class.
    """
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


def require_labels(data: UserData) -> None:
    """Report images without a label file: a problem where a split has none at all."""
    for split, part in data.splits.items():
        readable = [sample for sample in part.samples if not sample.fault]
        without = [sample.path for sample in readable if not os.path.isfile(label_path(sample.path))]
        if readable and len(without) == len(readable) and split != 'test':
            example = f'{without[0]}: expected {label_path(without[0])}'
            data.findings.problem(f'No image of {split or "the dataset"} has a label file:', example)
        elif without:
            data.findings.note('Images without a label file, taken to show no object:', *without)


def require_images(data: UserData) -> None:
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
        yield from (path for path in texts if is_label(Path(path)))
        if top == image_top:
            return


def note_poses(data: UserData) -> None:
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
