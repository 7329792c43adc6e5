"""A dataset with the classes of a trained model, in their order."""

from collections.abc import Sequence

from mmevm.data.records import UserData
from mmevm.data.splits import categories
from mmevm.engine.checks.class_lists import hint


def match_classes(data: UserData, names: Sequence[str]) -> None:
    """Number a dataset's classes as a model does; names that the model does not know are problems.

    Args:
        data (UserData): Changed in place.
        names (Sequence[str]): The model's classes.
    """
    if data.classes == list(names):
        return
    used = set().union(*(categories(sample, data.values) for sample in data.samples()))
    unknown = [data.classes[index] for index in sorted(used) if data.classes[index] not in names]
    for name in unknown:
        data.findings.problem(
            f'Names that match no class of the model ({", ".join(map(repr, names))}):',
            f'{data.root}: {name!r}{hint(name, names, "model")}',
        )
    if unknown:
        return
    numbers = {index: list(names).index(name) for index, name in enumerate(data.classes) if name in names}
    for sample in data.samples():
        sample.label = None if sample.label is None else numbers[sample.label]
        # Crowds and the like, of a class that the model does not know.
        sample.things[:] = [thing for thing in sample.things if thing.category in numbers]
        for thing in sample.things:
            thing.category = numbers[thing.category]
    data.values = {value: numbers[index] for value, index in data.values.items() if index in numbers}
    data.classes = list(names)
    for split in data.splits.values():
        split.annotations = ''
