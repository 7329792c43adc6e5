"""A dataset in a table, and what is wrong with it in sentences."""

from collections import Counter
from collections.abc import Mapping, Sequence

from mmevm.data.records import UserData
from mmevm.data.splits import categories
from mmevm.engine.checks.class_lists import LISTED

_COUNTED = {'detection': 'objects', 'classification': 'images', 'segmentation': 'images with it'}


def describe(data: UserData) -> str:
    """Return the table: images, objects by class and split, smallest and largest object, empty and broken files."""
    splits = list(data.splits)
    lines = [f'{data.layout} in {data.root}: {data.kind}, {len(data.classes)} classes']
    rows = [['', *splits], ['images', *(str(len(split.samples)) for split in data.splits.values())]]
    counts = [_count(data, name) for name in splits]
    if data.kind == 'detection':
        rows.append(['objects', *(str(sum(found.values())) for found in counts)])
        empty = [sum(not s.things and not s.fault for s in split.samples) for split in data.splits.values()]
        rows.append(['images without objects', *map(str, empty)])
        passed = [
            sum(not thing.is_trained_on for sample in split.samples for thing in sample.things)
            for split in data.splits.values()
        ]
        if any(passed):
            rows.append(['crowds, and below a pixel', *map(str, passed)])
    broken = [sum(bool(sample.fault) for sample in split.samples) for split in data.splits.values()]
    rows.append(['broken files', *map(str, broken)])
    rows.append([f'{_COUNTED[data.kind]}, by class', *('' for _ in splits)])
    rows += [[f'  {name}', *(str(found[index]) for found in counts)] for index, name in enumerate(data.classes)]
    return '\n'.join(lines + _aligned(rows) + _extremes(data))


def _count(data: UserData, split: str) -> Counter:
    samples = data.splits[split].samples
    if data.kind == 'detection':
        return Counter(thing.category for sample in samples for thing in sample.things)
    return Counter(index for sample in samples for index in categories(sample, data.values))


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        '  '
        + '  '.join([first.ljust(widths[0]), *(c.rjust(w) for c, w in zip(rest, widths[1:], strict=True))]).rstrip()
        for first, *rest in rows
    ]


def _extremes(data: UserData) -> list[str]:
    found = [(t.box[2] * t.box[3], t, sample) for sample in data.samples() for t in sample.things if not t.faulty]
    if not found:
        return []
    pair = min(found, key=lambda item: item[0]), max(found, key=lambda item: item[0])
    return [
        f'  {word} object: {thing.box[2]:.4g} x {thing.box[3]:.4g} pixels, '
        f'{data.classes[thing.category]!r} in {sample.path}'
        for word, (_, thing, sample) in zip(('smallest', 'largest'), pair, strict=True)
    ]


def listing(entries: Mapping[str, Sequence[str]], limit: int | None = LISTED) -> list[str]:
    """Return headings with their items below, the first ``limit`` of each."""
    lines = []
    for heading, items in entries.items():
        lines += [heading, *(f'  {item}' for item in items[:limit])]
        if limit is not None and len(items) > limit:
            lines.append(f'  and {len(items) - limit} more')
    return lines


def refusal(data: UserData, limit: int | None = LISTED) -> str | None:
    """Return everything that keeps a dataset from being used, or ``None``."""
    findings = data.findings
    lines = listing(findings.problems, limit) + listing(findings.faults, limit)
    if not lines:
        return None
    count = sum(map(len, (*findings.problems.values(), *findings.faults.values())))
    lines.insert(0, f'{data.root} has {count} problem{"s" if count > 1 else ""}:')
    if findings.faults and not findings.problems:
        lines.append('Put them right; or let tools/train.py and test.py leave these out with --skip-broken.')
    return '\n'.join(lines)
