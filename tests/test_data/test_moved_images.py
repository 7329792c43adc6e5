"""Images that lists name by another machine's paths, or without their folders."""

from pathlib import Path

import pytest

from mmevm.data.reading import read_data

from . import layouts

HOME = '/home/me/p/'


def places(names: list[str], listed: list[str], root: Path, json: str = 'annotations/all.json') -> list[str]:
    """Where the images of a COCO file are found, '' for those that are not."""
    for index, name in enumerate(names):
        layouts.paint(root / name, index)
    layouts.write_json(root / json, layouts.coco(listed))
    samples = sorted(read_data(root).samples(), key=lambda sample: sample.number)
    paths = [Path(sample.path) for sample in samples if sample.source.endswith(json)]
    return [path.relative_to(root).as_posix() if path.is_file() else '' for path in paths]


REPEATED = ['images/v0/0.jpg', 'images/v0/3.jpg', 'images/v1/3.jpg']


@pytest.mark.parametrize(
    'names, listed, found',
    [
        (REPEATED, [HOME + 'images/v0/0.jpg', HOME + 'images/v1/3.jpg'], ['images/v0/0.jpg', 'images/v1/3.jpg']),
        (REPEATED, ['D:\\p\\v0\\0.jpg', 'D:\\p\\v1\\3.jpg'], ['images/v0/0.jpg', 'images/v1/3.jpg']),
        (REPEATED, ['p/v0/0.jpg', 'p/v1/0.jpg'], ['images/v0/0.jpg', '']),
        (REPEATED, [HOME + '0.jpg', HOME + '3.jpg'], ['images/v0/0.jpg', '']),
        (REPEATED, ['0.jpg', './images/v1/3.jpg'], ['images/v0/0.jpg', 'images/v1/3.jpg']),
        (['train/c0/a.jpg', 'train/c1/b.jpg'], ['C:\\data\\c0\\a.jpg', 'C:\\data\\c1\\b.jpg'], None),
        (['train/c0/a.jpg', 'train/c1/b.jpg'], ['a.jpg', 'b.jpg'], None),
        (['train/c0/a.jpg', 'train/c0/d.jpg', 'train/c1/b.jpg'], ['a.jpg', 'd.jpg', 'b.jpg'], None),
        (['images/a.jpg', 'images/b.jpg', 'masks/b.jpg'], ['/x/a.jpg', '/x/b.jpg'], ['images/a.jpg', 'images/b.jpg']),
        (['images/a.jpg', 'masks/b.jpg'], ['a.jpg', 'b.jpg'], ['images/a.jpg', '']),
    ],
)
def test_the_longest_end_of_a_name_counts(names: list, listed: list, found: list | None, tmp_path: Path) -> None:
    assert places(names, listed, tmp_path) == (found or names)


@pytest.mark.parametrize('listed', [['1.jpg', '2.jpg'], [HOME + '1.jpg', HOME + '2.jpg']])
def test_an_image_of_another_split_does_not_stand_in(listed: list[str], tmp_path: Path) -> None:
    names = ['images/train/1.jpg', 'images/train/2.jpg', 'images/val/1.jpg']
    layouts.write_json(tmp_path / 'annotations/train.json', layouts.coco(['1.jpg'], 5))
    assert places(names, listed, tmp_path, 'annotations/val.json') == ['images/val/1.jpg', '']


@pytest.mark.parametrize('listed', [[HOME + '0.jpg', HOME + '3.jpg'], ['0.jpg', '3.jpg', '5.jpg']])
def test_names_of_several_images_are_problems_that_name_them(listed: list[str], tmp_path: Path) -> None:
    more = ['images/v1/5.jpg'] if len(listed) == 3 else []
    places([*REPEATED, *more], listed, tmp_path)
    problems = str(read_data(tmp_path).findings.problems)
    assert 'images/v0' in problems and 'images/v1' in problems


def test_images_are_found_whatever_the_machine_of_a_yolo_list(tmp_path: Path) -> None:
    root = layouts.write_yolo(tmp_path, {'train': 2, 'val': 1})
    names = [f'/home/me/ds/images/train/{index:04d}.jpg' for index in (0, 1)]
    (root / 'train.txt').write_text('\n'.join(names))
    (root / 'val.txt').write_text('D:\\ds\\images\\val\\0002.jpg')
    (root / 'data.yaml').write_text('train: train.txt\nval: val.txt\nnames: [cat, dog, owl]')
    data = read_data(root)
    assert not data.findings.problems and not data.findings.faults
    assert [Path(sample.path).parent.name for sample in data.samples()] == ['train', 'train', 'val']


@pytest.mark.parametrize('kind', ['dots', 'link', 'linked folder'])
def test_an_image_of_two_splits_is_known_whatever_its_path(kind: str, tmp_path: Path) -> None:
    for index in range(3):
        layouts.paint(tmp_path / f'images/{index}.jpg', index)
    other = {'dots': './1.jpg', 'link': 'other.jpg', 'linked folder': 'more/1.jpg'}[kind]
    (tmp_path / 'images/other.jpg').symlink_to('1.jpg')
    (tmp_path / 'images/more').symlink_to('.')
    layouts.write_json(tmp_path / 'annotations/train.json', layouts.coco(['0.jpg', '1.jpg']))
    layouts.write_json(tmp_path / 'annotations/val.json', layouts.coco(['2.jpg', other]))
    problems = read_data(tmp_path).findings.problems
    assert [len(items) for heading, items in problems.items() if 'more than once' in heading] == [1]
