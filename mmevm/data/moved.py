"""Images that lists name by paths of another machine, or by names without their folders."""

import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterable
from itertools import takewhile
from pathlib import Path
from typing import Any

from mmevm.data.records import Findings, images_below, plain_name, split_of, unread_below

#: Words in the names of folders of what is like images.
FOR_OTHERS = re.compile(r'masks?|depth|labels?|annotat|segment|drawn|vis|debug|pred|thumb|overlay|gt|seg')


def find_moved(
    file: Path, names: Iterable[str], root: Path, split: str, misfit: Callable[[Path], Any], findings: Findings
) -> dict[str, str]:
    """Find images whose names do not lead to them.

    The longest end of a name that an image below the folder has counts. Its last part alone counts where no image is
    found with the folder in which it should be.

    Args:
        file (Path): The list.
        names (Iterable[str]): As they are in the list.
        root (Path): The folder to search.
        split (str): The split of the list, or ''.
        misfit (Callable[[Path], Any]): How little a folder fits; of several images, that in the best one is taken.
        findings (Findings): Gets names that several images have.

    Returns:
        dict[str, str]: The images by name, of the names that have one.
    """
    names = list(names)
    images: dict[str, list[str]] = defaultdict(list)
    for image in (*images_below(root), *unread_below(root)) if names else ():
        images[os.path.basename(image)].append(image)
    parts = {name: tuple(os.path.normpath(plain_name(name)).split('/')) for name in names}
    ends = {name: _longest_end(words, images[words[-1]]) for name, words in parts.items() if words[-1] in images}
    own = {
        name: [image for image in found if length > 1 or _may_be(image, root, split)]
        for name, (length, found) in ends.items()
    }
    if not any(own.values()):
        own = {name: found for name, (_, found) in ends.items()}
    heads = {name: parts[name][: -ends[name][0]] for name, found in own.items() if found}
    known = set(heads.values())
    moved = {}
    for name, head in heads.items():
        if any(head[:count] in known for count in range(len(head))):  # its folder is here, without the image
            continue
        best = min(misfit(Path(image).parent) for image in own[name])
        found = [image for image in own[name] if misfit(Path(image).parent) == best]
        if len(found) > 1:
            report_unclear(findings, file, name, found)
        else:
            moved[name] = found[0]
    return moved


def report_unclear(findings: Findings, file: Path, name: str, images: Iterable[str]) -> None:
    """Report a name that several images have."""
    findings.problem('Names that several images have; add their folder:', f'{file}: {name}: {" and ".join(images)}')


def _longest_end(words: tuple[str, ...], images: list[str]) -> tuple[int, list[str]]:
    """Return how many of the last parts of a name images have, and the images with the most."""
    common: dict[int, list[str]] = defaultdict(list)
    for image in images:
        pairs = zip(reversed(words), reversed(Path(image).parts), strict=False)
        common[len(list(takewhile(lambda pair: pair[0] == pair[1], pairs)))].append(image)
    return max(common), common[max(common)]


def _may_be(image: str, root: Path, split: str) -> bool:
    """Return whether the folders of an image are neither of another split nor of what is like images."""
    folders = Path(image).relative_to(root).parts[:-1]
    return not any(
        FOR_OTHERS.search(name.casefold()) or (split and split_of(name) not in (None, split)) for name in folders
    )
