"""Where the images of a COCO file are."""

import os
import re
from pathlib import Path
from typing import Any

from mmevm.data.moved import FOR_OTHERS, find_moved, report_unclear
from mmevm.data.records import Findings, plain_name, split_of

# Folders of images, by their names.
_FOR_IMAGES = re.compile(r'^(images?|imgs?|jpegimages|photos?|rgb|data)$')
# Files of one name for every split are told apart by their folder.
_SAMPLED_NAMES = 50


def image_folder(split: str, file: Path, images: list[dict], folders: list[Path], findings: Findings) -> str:
    """Return the folder in which most of a file's images are; of several, the one whose name fits best."""
    names = [plain_name(str(image.get('file_name', ''))) for image in images[:_SAMPLED_NAMES]]
    names = [name for name in names if not os.path.isabs(name)]
    candidates = list(dict.fromkeys([file.parent, *folders]))
    present = {folder: {name for name in names if (folder / name).is_file()} for folder in candidates}
    if split and (own := [item for item in candidates if present[item] and split_of(item.name) in (None, split)]):
        candidates = own
    most = max(len(present[folder]) for folder in candidates)
    best = [folder for folder in candidates if len(present[folder]) == most]
    best.sort(key=lambda folder: _misfit(folder, file, split))
    others = [folder for folder in best[1:] if present[folder] & present[best[0]]]
    equal = [str(folder) for folder in others if _misfit(folder, file, split) == _misfit(best[0], file, split)]
    if equal:
        heading = f'Folders with images of the same names; call the one that {file} means images:'
        findings.problem(heading, str(best[0]), *equal)
    elif others:
        findings.note(f'Images are taken from {best[0]}; there are some of the same names in:', *map(str, others))
    return str(best[0])


def _misfit(folder: Path, file: Path, split: str) -> tuple[bool, bool, int]:
    """Return how little a folder's name fits the images of a split; the least is the best."""
    found = [name for part in folder.parts[-2:] if (name := split_of(part))]
    name = folder.name.casefold()
    is_other = split_of(name) not in (None, split) or FOR_OTHERS.search(name)
    kind = 2 if is_other else 0 if _FOR_IMAGES.search(name) or split_of(name) else 1
    return bool(split and split not in found), folder != file.parent, kind


def image_paths(
    split: str, file: Path, root: Path, prefix: str, images: list[dict[str, Any]], findings: Findings
) -> dict[str, str]:
    """Return the paths of images by their names; other folders than the names' count only where none of these is here.

    Args:
        split (str): The split of the file, or ''.
        file (Path): The COCO file.
        root (Path): The dataset's folder.
        prefix (str): The folder with most of the images.
        images (list[dict[str, Any]]): What the file lists.
        findings (Findings): Gets names that several images have.
    """
    names = [name for image in images if isinstance(name := image.get('file_name'), str)]
    paths = {name: lead_to(prefix, name) for name in names}
    here = [os.path.normpath(plain_name(name)) for name, path in paths.items() if os.path.isfile(path)]
    lost = [name for name, path in paths.items() if not os.path.isfile(path)]
    if not lost or any(map(os.path.dirname, here)):
        return paths
    folder = Path(prefix)
    is_whole = bool(_FOR_IMAGES.search(folder.name.casefold()) or split_of(folder.name))
    place = root if not here else folder if is_whole or folder == root else folder.parent
    moved = find_moved(file, lost, place, split, lambda folder: _misfit(folder, file, split), findings)
    places = {os.path.dirname(path) for path in moved.values()} - {prefix}
    for name in here:
        if twins := [twin for place in sorted(places) if os.path.isfile(twin := os.path.join(place, name))]:
            report_unclear(findings, file, name, [os.path.join(prefix, name), *twins])
    return paths | moved


def lead_to(prefix: str, name: str) -> str:
    """Return where a name leads to, without dots that change nothing."""
    candidates = [os.path.join(prefix, name), os.path.join(prefix, plain_name(name))]
    path = next(filter(os.path.isfile, candidates), candidates[0])
    plain = os.path.normpath(path)
    return plain if plain != path and os.path.isfile(plain) and os.path.samefile(plain, path) else path
