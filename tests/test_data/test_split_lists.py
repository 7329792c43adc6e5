"""Lists that divide datasets of Pascal VOC and YOLO, by whatever names."""

from pathlib import Path

import pytest

from mmevm.data.reading import read_data

from . import layouts

TRAIN, VAL = '0000\n0001\n0002', '0003'


def write(root: Path, names: dict[str, str]) -> None:
    for name, text in names.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


def counts(root: Path) -> dict[str, int]:
    data = read_data(root)
    assert not data.findings.problems and not data.findings.faults
    return {split: len(part.samples) for split, part in data.splits.items()}


MAIN = 'ImageSets/Main/'


@pytest.mark.parametrize(
    'names, folder',
    [
        (('training', 'validation'), MAIN),
        (('Train', 'Val'), 'imagesets/main/'),
        (('train2017', 'val2017'), MAIN),
        (('train', 'validation'), 'splits/'),
        (('cat_train', 'cat_val'), MAIN),
        (('cat_train', 'cat_val'), ''),
        (('trainval', 'val'), ''),
    ],
)
def test_lists_of_voc_are_used_whatever_their_names(names: tuple[str, str], folder: str, tmp_path: Path) -> None:
    root = layouts.write_voc(tmp_path, {'': 4})
    (root / 'unused.txt').write_text('no image of it')
    flagged = VAL + ' -1' if names[1] == 'cat_val' else VAL
    write(root, {f'{folder}{names[0]}.txt': TRAIN, f'{folder}{names[1]}.txt': flagged})
    assert counts(root) == {'train': 3, 'val': 1}
    assert not any('not used' in heading for heading in read_data(root).findings.notes)


def test_lists_of_voc_may_have_paths_and_those_of_classes_do_not_count_beside_others(tmp_path: Path) -> None:
    root = layouts.write_voc(tmp_path, {'': 4})
    write(root, {f'{MAIN}train.txt': '/home/me/JPEGImages/0000.jpg\nC:\\d\\0001.jpg', f'{MAIN}val.txt': '0002\n0003'})
    write(root, {f'{MAIN}cat_train.txt': VAL, f'{MAIN}train2017.txt': VAL, f'{MAIN}trainval.txt': f'{TRAIN}\n{VAL}'})
    assert counts(root) == {'train': 2, 'val': 2}
    notes = read_data(root).findings.notes
    assert [items for heading, items in notes.items() if 'not used' in heading] == [[f'{root / MAIN}/train2017.txt']]


@pytest.mark.parametrize('folder', ['', 'splits/'])
def test_lists_of_unknown_names_are_noted(folder: str, tmp_path: Path) -> None:
    lists = {f'{folder}held_out.txt': '0001.jpg\n0002.jpg'}
    for root in (layouts.write_voc(tmp_path / 'voc', {'': 4}), layouts.write_yolo(tmp_path / 'yolo', {'': 4})):
        write(root, lists)
        (root / 'data.yaml').unlink(missing_ok=True)
        (root / 'classes.txt').write_text('\n'.join(layouts.CLASSES))
        notes = read_data(root).findings.notes
        assert [items for heading, items in notes.items() if 'not used' in heading] == [
            [f'{root / folder}/held_out.txt']
        ]


@pytest.mark.parametrize(
    'names, lists, prefix',
    [
        ('classes.txt', ('Train', 'val'), 'images/'),
        ('classes.txt', ('training', 'validation'), ''),
        ('obj.names', ('train', 'valid'), 'data/obj/images/'),
        ('obj.names', ('train', 'valid'), './images/'),
    ],
)
def test_lists_of_yolo_are_used_without_data_yaml(names: str, lists: tuple, prefix: str, tmp_path: Path) -> None:
    root = layouts.write_yolo(tmp_path, {'': 5})
    (root / 'data.yaml').unlink()
    lines = [f'{prefix}{index:04d}.jpg' for index in range(4)]
    write(root, {names: '\n'.join(layouts.CLASSES), 'obj.data': 'train = data/train.txt\nvalid = data/valid.txt'})
    write(root, {f'{lists[0]}.txt': '\n'.join(lines[:3]), f'{lists[1]}.txt': lines[3]})
    assert counts(root) == {'train': 3, 'val': 1}
    notes = read_data(root).findings.notes
    assert [len(items) for heading, items in notes.items() if 'no list names' in heading] == [1]


def test_folders_of_splits_come_before_lists(tmp_path: Path) -> None:
    root = layouts.write_yolo(tmp_path, {'train': 2, 'val': 2})
    (root / 'data.yaml').unlink()
    write(root, {'classes.txt': '\n'.join(layouts.CLASSES), 'train.txt': 'images/train/0000.jpg'})
    assert counts(root) == {'train': 2, 'val': 2}


@pytest.mark.parametrize(
    'flag, crowd',
    [('True', True), ('true', True), (' 1 ', True), ('0', False), ('False', False), ('Unspecified', False)],
)
def test_difficult_may_be_a_word(flag: str, crowd: bool, tmp_path: Path) -> None:
    root = layouts.write_voc(tmp_path, {'train': 1, 'val': 1})
    path = root / 'Annotations/0000.xml'
    text = path.read_text().replace('<difficult>0<', f'<difficult>{flag}<')
    path.write_text(text)
    assert {thing.crowd for thing in read_data(root).splits['train'].samples[0].things} == {crowd}
