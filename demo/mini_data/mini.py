"""Miniature COCO, ADE20K and ImageNet trees in the layouts that mmdet, mmseg and mmpretrain read."""

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from demo.mini_data.ade20k import write_ade20k
from demo.mini_data.coco import write_coco
from demo.mini_data.folders import is_current, make_folder, require_replaceable
from demo.mini_data.imagenet import write_imagenet
from demo.mini_data.options import SUBSETS, Options, Progress

# Raised whenever the same options would give other bytes, so that old trees are rendered anew.
_RENDERER_VERSION = 3


@dataclass(frozen=True)
class _Subset:
    """Where a data set goes below the output folder, and how it is made."""

    folder: str
    data_root: str
    write: Callable[[Path, Options, Progress], None]
    train_images: int
    val_images: int


_SUBSETS = {
    'coco': _Subset('coco', 'coco', write_coco, 480, 80),
    'ade20k': _Subset('ade', 'ade/ADEChallengeData2016', write_ade20k, 120, 24),
    'imagenet': _Subset('imagenet', 'imagenet', write_imagenet, 160, 40),
}


@dataclass(frozen=True)
class MiniData:
    """One data set on disk.

    Args:
        subset (str): ``'coco'``, ``'ade20k'`` or ``'imagenet'``.
        data_root (Path): What configs call ``data_root``.
        options (Options): What it was rendered from.
        rendered (bool): False where it was there already.
    """

    subset: str
    data_root: Path
    options: Options
    rendered: bool


def silent(count: int, title: str) -> Iterable[int]:
    """A :data:`demo.mini_data.options.Progress` that shows nothing."""
    return range(count)


def _record(options: Options) -> dict[str, Any]:
    return dict(asdict(options), renderer_version=_RENDERER_VERSION)


def _resolve(subsets: Sequence[str], **common: Any) -> list[Options]:
    """Options of each data set, with its own default counts."""
    for subset in subsets:
        if subset not in SUBSETS:
            raise ValueError(f'the data set must be one of {", ".join(SUBSETS)}, got {subset!r}')
    chosen = [subset for subset in SUBSETS if subset in subsets]
    if not chosen:
        raise ValueError(f'at least one data set of {", ".join(SUBSETS)} must be chosen, got none')
    counts = {
        subset: {
            key: getattr(_SUBSETS[subset], key) if common[key] is None else common[key]
            for key in ('train_images', 'val_images')
        }
        for subset in chosen
    }
    return [
        Options(subset, seed=common['seed'], image_size=common['image_size'], **counts[subset]) for subset in chosen
    ]


def make_mini_data(
    out: str | os.PathLike,
    subsets: Sequence[str] = SUBSETS,
    *,
    seed: int = 0,
    image_size: int = 256,
    train_images: int | None = None,
    val_images: int | None = None,
    force: bool = False,
    progress: Progress = silent,
) -> list[MiniData]:
    """Render miniature data sets; one that is there with the same options is left alone.

    Args:
        out (str | os.PathLike): Folder that gets ``coco/``, ``ade/ADEChallengeData2016/`` and ``imagenet/``, as
            ``data/`` would hold the real ones.
        subsets (Sequence[str]): Any of ``'coco'``, ``'ade20k'``, ``'imagenet'``.
        seed (int): Equal options give equal bytes.
        image_size (int): Edge of the square pictures in pixels, at least 64.
        train_images (int | None): Training pictures per data set; None for 480, 120 and 160.
        val_images (int | None): Validation pictures per data set; None for 80, 24 and 40.
        force (bool): Render even what is there, and rename folders with foreign contents out of the way.
        progress (Progress): Shows how far the rendering is.

    Returns:
        list[MiniData]: What lies where.

    Raises:
        ValueError: An option is out of its range.
        FileExistsError: A folder holds files that were not rendered, and ``force`` is not set.
    """
    plans = [
        (options, Path(out) / _SUBSETS[options.subset].folder)
        for options in _resolve(
            subsets, seed=seed, image_size=image_size, train_images=train_images, val_images=val_images
        )
    ]
    wanted = [force or not is_current(folder, _record(options)) for options, folder in plans]
    # All folders are checked before the first is rendered.
    for (_, folder), render in zip(plans, wanted, strict=True):
        if render and not force:
            require_replaceable(folder)
    results = []
    for (options, folder), render in zip(plans, wanted, strict=True):
        subset = _SUBSETS[options.subset]
        if render:
            make_folder(folder, _record(options), lambda root, o=options, s=subset: s.write(root, o, progress), force)
        results.append(MiniData(options.subset, Path(out) / subset.data_root, options, render))
    return results
