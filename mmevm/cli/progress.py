"""How far a tool is."""

import sys
from collections.abc import Iterator, Sequence
from typing import TypeVar

from mmengine.utils import ProgressBar

_Item = TypeVar('_Item')


def shown(items: Sequence[_Item], title: str) -> Iterator[_Item]:
    """Go through items below a title, with a bar on a terminal and without one elsewhere.

    Args:
        items (Sequence[T]): What to go through.
        title (str): A line of its own.

    Yields:
        T: The items in their order.
    """
    print(title, flush=True)
    bar = ProgressBar(len(items), file=sys.stdout) if sys.stdout.isatty() else None
    for item in items:
        yield item
        if bar:
            bar.update()
    if bar:
        print()
