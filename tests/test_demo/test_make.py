"""`demo.mini_data.make_mini_data`: deterministic trees, free second calls, refusal to overwrite, clear errors."""

import hashlib
from pathlib import Path
from typing import Any

import pytest

from demo.mini_data import make_mini_data
from demo.mini_data.make import MARKER

_SMALL = dict(image_size=64, train_images=2, val_images=1)


def _digests(root: Path) -> dict[str, str]:
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob('*'))
        if path.is_file()
    }


def test_equal_options_give_equal_bytes(tmp_path: Path) -> None:
    for name in 'ab':
        make_mini_data(tmp_path / name, seed=5, **_SMALL)
    first = _digests(tmp_path / 'a')
    assert first == _digests(tmp_path / 'b')
    assert len([name for name in first if name.lower().endswith(('.jpg', '.jpeg'))]) == 9


def test_another_seed_gives_other_images(tmp_path: Path) -> None:
    for seed in (5, 6):
        make_mini_data(tmp_path / str(seed), ['coco'], seed=seed, **_SMALL)
    first, second = (_digests(tmp_path / str(seed)) for seed in (5, 6))
    assert first.keys() == second.keys()
    assert all(first[name] != second[name] for name in first if name.endswith('.jpg'))


def test_more_images_leave_the_earlier_ones_alone_and_splits_differ(tmp_path: Path) -> None:
    make_mini_data(tmp_path / 'few', ['coco'], **_SMALL)
    make_mini_data(tmp_path / 'many', ['coco'], image_size=64, train_images=4, val_images=2)
    few, many = (_digests(tmp_path / name) for name in ('few', 'many'))
    images = [name for name in few if name.endswith('.jpg')]
    assert all(few[name] == many[name] for name in images)
    all_digests = [digest for name, digest in many.items() if name.endswith('.jpg')]
    assert len(set(all_digests)) == len(all_digests) == 6


def test_second_call_renders_nothing(tmp_path: Path) -> None:
    def fail(count: int, title: str) -> Any:
        raise AssertionError(f'rendered {title}')

    [first] = make_mini_data(tmp_path, ['imagenet'], **_SMALL)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob('*')}
    [second] = make_mini_data(tmp_path, ['imagenet'], progress=fail, **_SMALL)
    assert first.rendered and not second.rendered
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob('*')}


def test_other_options_and_lost_files_render_anew(tmp_path: Path) -> None:
    make_mini_data(tmp_path, ['coco'], **_SMALL)
    original = _digests(tmp_path)
    next((tmp_path / 'coco/train2017').iterdir()).unlink()
    [repaired] = make_mini_data(tmp_path, ['coco'], **_SMALL)
    assert repaired.rendered and _digests(tmp_path) == original
    [changed] = make_mini_data(tmp_path, ['coco'], seed=1, **_SMALL)
    assert changed.rendered and _digests(tmp_path) != original
    assert [path.name for path in tmp_path.iterdir()] == ['coco']


@pytest.mark.parametrize('made_before', [False, True], ids=['foreign folder', 'foreign file in our folder'])
def test_foreign_files_are_neither_overwritten_nor_deleted(tmp_path: Path, made_before: bool) -> None:
    if made_before:
        make_mini_data(tmp_path, ['coco'], **_SMALL)
    foreign = tmp_path / 'coco/train2017/mine.jpg'
    foreign.parent.mkdir(parents=True, exist_ok=True)
    foreign.write_text('precious')
    before = _digests(tmp_path)
    with pytest.raises(FileExistsError, match=r'mine\.jpg.*--out.*--force.*coco\.backup1'):
        make_mini_data(tmp_path, seed=9, **_SMALL)
    assert _digests(tmp_path) == before
    make_mini_data(tmp_path, ['coco'], seed=9, force=True, **_SMALL)
    assert (tmp_path / 'coco' / MARKER).exists() and not foreign.exists()
    assert (tmp_path / 'coco.backup1/train2017/mine.jpg').read_text() == 'precious'


def test_an_interrupted_run_leaves_nothing_behind(tmp_path: Path) -> None:
    def interrupt(count: int, title: str) -> Any:
        yield 0
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_mini_data(tmp_path / 'out', ['ade20k'], progress=interrupt, **_SMALL)
    assert list((tmp_path / 'out').iterdir()) == []


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(image_size=32), r'`image_size` must be 64 to 4096 pixels.*got 32'),
        (dict(train_images=0), r'`train_images` must be 1 to 99999, got 0'),
        (dict(val_images=-3), r'`val_images` must be 1 to 99999, got -3'),
        (dict(seed=-1), r'`seed` must be 0 or larger, got -1'),
        (dict(subsets=['voc']), r'must be one of coco, ade20k, imagenet, got .voc.'),
        (dict(subsets=[]), r'at least one dataset of coco, ade20k, imagenet'),
    ],
    ids=['size', 'train', 'val', 'seed', 'subset', 'none'],
)
def test_bad_options_raise_before_anything_is_written(tmp_path: Path, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_mini_data(tmp_path / 'out', **options)
    assert not (tmp_path / 'out').exists()
