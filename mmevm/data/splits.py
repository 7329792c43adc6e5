"""Dividing a dataset into a training and a validation split."""

import hashlib
import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from mmevm.data.records import Sample, Split, UserData
from mmevm.errors import UsageError

SEED = 0
SHARE = 0.2
"""Images of a made validation split, of all."""


def categories(sample: Sample, values: dict[int, int]) -> set[int]:
    """Return the classes of an image."""
    if sample.label is not None:
        return {sample.label}
    if sample.mask is not None:
        return {values[value] for value in sample.values if value in values}
    return {thing.category for thing in sample.things if thing.is_trained_on}


def complete_splits(data: UserData) -> None:
    """Make sure that there is a training and a validation split, and note which was made or stands in."""
    _drop_unannotated_test(data)
    found = [split for split in ('train', 'val', 'test') if split in data.splits]
    if not data.splits:  # the findings say why
        data.splits = {'train': Split([]), 'val': Split([])}
    elif '' in data.splits or found == ['train']:
        _divide(data, data.splits.pop('' if '' in data.splits else 'train'))
    elif 'train' not in found and data.findings.problems:  # which may be why
        data.splits = {'train': Split([]), 'val': Split([]), **data.splits}
    elif 'train' not in found:
        raise UsageError(
            f'{data.root} has a split {" and ".join(found)}, and none to train on. Name one train, or give the folder '
            'or file of all images, which is then divided.'
        )
    elif 'val' not in found:
        data.splits['val'] = data.splits['test']
        data.findings.note('There is no validation split: the test split stands in for it')


def _drop_unannotated_test(data: UserData) -> None:
    """Remove a test split whose annotations were not published, as those of challenges."""
    test = data.splits.get('test')
    if data.kind == 'detection' and test and len(data.splits) > 1 and not any(s.things for s in test.samples):
        data.splits.pop('test')
        data.findings.note('The test split has no annotations and is left out')


def choose_evaluated(data: UserData, trained: str) -> None:
    """Keep the split that an evaluation uses, as ``'test'``, and note which it is.

    Args:
        data (UserData): The dataset.
        trained (str): The text of the config that the model was trained with. If it names this dataset, the split is
            made again that was made for that run.
    """
    if not data.splits:  # the findings say why
        data.splits = {'test': Split([])}
        return
    _drop_unannotated_test(data)
    found = next((split for split in ('test', 'val') if split in data.splits), '')
    if not found and _names(trained, data.source):
        complete_splits(data)
        found = 'val'
        data.redrawn = True
    elif not found:
        found = next(iter(data.splits))
        count = len(data.splits[found].samples)
        data.findings.note(f'There is no test or validation split: all {count} images are evaluated')
    data.splits = {'test': data.splits[found]}


def _names(config: str, path: Path) -> bool:
    """Return whether the text of a config has a path, or another name of what is there, such as a link."""
    real = os.path.realpath(path)
    texts = (text for _, text in re.findall(r"""(['"])(.*?)\1""", config))
    return repr(str(path)) in config or any(os.path.isabs(text) and os.path.realpath(text) == real for text in texts)


def _divide(data: UserData, split: Split) -> None:
    usable = [sample for sample in split.samples if not sample.fault]
    if len(usable) < 2:
        return data.splits.update(train=split, val=Split([]))
    names = [os.path.relpath(sample.path, data.root) for sample in split.samples]
    chosen = choose([categories(sample, data.values) for sample in split.samples], names=names)
    parts: dict[str, list[Sample]] = {'train': [], 'val': []}
    for index, sample in enumerate(split.samples):
        parts['val' if index in chosen else 'train'].append(sample)
    data.splits.update({name: Split(samples) for name, samples in parts.items()})
    data.findings.note(
        f'There is no validation split: {len(parts["val"])} of {len(split.samples)} images were drawn for it (seed '
        f'{SEED}, every class in both splits where it has two images), the same ones every time'
    )


def choose(
    classes: list[set[int]], share: float = SHARE, seed: int = SEED, names: Sequence[str] | None = None
) -> set[int]:
    """Choose images for validation so that every class with two images or more is in both splits, in proportion.

    Args:
        classes (list[set[int]]): Classes of every image.
        share (float): Of the images that are chosen.
        seed (int): Equal seeds choose the same images.
        names (Sequence[str], optional): What they are drawn by, instead of their position: with a few images more or
            less, nearly all others stay in their split.

    Returns:
        set[int]: Indices of images.
    """
    names = [str(index) for index in range(len(classes))] if names is None else names
    keys = [hashlib.sha256(f'{seed}/{name}'.encode(errors='surrogateescape')).digest() for name in names]
    order = sorted(range(len(classes)), key=keys.__getitem__)
    totals = Counter(number for found in classes for number in found)
    chosen: set[int] = set()
    counts: Counter[int] = Counter()  # of the chosen
    wanted = {number: max(1, round(share * total)) if total > 1 else 0 for number, total in totals.items()}
    for number in sorted(totals, key=lambda number: (totals[number], number)):
        for index in order:
            if counts[number] >= wanted[number]:
                break
            others = classes[index]
            if number in others and index not in chosen and all(counts[n] + 1 < totals[n] for n in others):
                chosen.add(index)
                counts.update(others)
    missing = max(1, round(share * len(classes))) - len(chosen)
    plain = [index for index in order if index not in chosen and all(counts[n] + 1 < totals[n] for n in classes[index])]
    # Images without objects first: those with objects are in proportion already.
    chosen.update(sorted(plain, key=lambda index: bool(classes[index]))[: max(missing, 0)])
    return chosen or set(order[:1])
