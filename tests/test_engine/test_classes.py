"""`mmevm.engine.checks.classes`: class lists against annotations, heads and each other, before a model is built."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mmengine.config import Config
from PIL import Image

from mmevm.engine.checks.class_counts import class_counts
from mmevm.engine.checks.classes import check_classes
from mmevm.errors import UsageError

pytestmark = pytest.mark.openmmlab


def problems(cfg: Config, *phases: str) -> str:
    with pytest.raises(UsageError) as caught:
        check_classes(cfg, phases or ('train',))
    return str(caught.value)


@pytest.fixture
def notes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is printed instead of refused."""
    said: list[str] = []
    monkeypatch.setattr('mmevm.engine.checks.classes.print_log', lambda message, **_: said.append(message))
    return said


def write_coco(path: Path, names: Sequence[str], ids: Sequence[int] | None = None, **content: Any) -> Path:
    """A COCO file with the categories 1, 2, … and one box of each id."""
    categories = [dict(id=number, name=name) for number, name in enumerate(names, 1)]
    annotations = [
        dict(id=number, image_id=1, category_id=category, bbox=[0, 0, 4, 4], area=16, iscrowd=0)
        for number, category in enumerate(ids or range(1, len(names) + 1))
    ]
    images = [dict(id=1, file_name='1.jpg', height=8, width=8)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(dict(dict(images=images, annotations=annotations, categories=categories), **content)))
    return path


def detection(root: Path, classes: Any = None, count: int = 3, val: Any = None, **model: Any) -> Config:
    def loader(split: str, classes: Any) -> dict:
        metainfo = {} if classes is None else dict(metainfo=dict(classes=classes))
        return dict(
            dataset=dict(
                type='CocoDataset', data_root=str(root), ann_file=f'{split}.json', data_prefix=dict(img=''), **metainfo
            )
        )

    return Config(
        dict(
            default_scope='mmdet',
            model=model or dict(bbox_head=dict(type='RetinaHead', num_classes=count)),
            train_dataloader=loader('train', classes),
            val_dataloader=loader('val', val or classes),
            val_evaluator=dict(type='CocoMetric', ann_file=f'{root}/val.json'),
        )
    )


class TestCoco:
    def test_lists_that_agree_and_chosen_categories_pass(self, tmp_path: Path, notes: list[str]) -> None:
        write_coco(tmp_path / 'train.json', ['cat', 'dog', 'traffic light'])
        write_coco(tmp_path / 'val.json', ['cat', 'dog', 'traffic light'])
        check_classes(detection(tmp_path, ('cat', 'dog', 'traffic light')), ('train', 'val'))
        assert notes == []
        check_classes(detection(tmp_path, ['cat', 'traffic light'], 2), ('train',))
        assert len(notes) == 1 and notes[0].endswith("are classes: 'cat', 'traffic light'. Left out: 'dog'")

    def test_a_name_in_other_case_is_refused_with_the_spelling_of_the_file(self, tmp_path: Path) -> None:
        write_coco(tmp_path / 'train.json', ['cat', 'Dog', 'bird', 'traffic-light'])
        said = problems(detection(tmp_path, ('cat', 'dog', 'traffic light')))
        assert "in both: 'cat'" in said
        assert "in the config alone: 'dog' (in the file: 'Dog'), 'traffic light' (in the file: 'traffic-light')" in said
        assert "classes = ('cat', 'Dog', 'traffic-light')" in said

    def test_a_name_that_the_file_lacks_is_refused_for_it_would_move_the_others(self, tmp_path: Path) -> None:
        write_coco(tmp_path / 'train.json', ['cat', 'dog'])
        assert "in the config alone: 'zebra'" in problems(detection(tmp_path, ('cat', 'zebra', 'dog')))

    def test_the_default_names_beside_other_categories_are_answered_with_the_lines_to_write(
        self, tmp_path: Path
    ) -> None:
        for split in ('train', 'val'):
            write_coco(tmp_path / f'{split}.json', ['balloon', 'kite flyer'])
        heads = dict(
            roi_head=dict(
                type='CascadeRoIHead',
                bbox_head=[dict(type='Shared2FCBBoxHead', num_classes=80)],
                mask_head=dict(type='FCNMaskHead', num_classes=80),
            )
        )
        cfg = detection(tmp_path, None, **heads)
        cfg.train_dataloader.dataset = dict(type='RepeatDataset', times=2, dataset=cfg.train_dataloader.dataset)
        said = problems(cfg, 'train', 'val').splitlines()
        assert "  classes = ('balloon', 'kite flyer')" in said
        assert '  train_dataloader = dict(dataset=dict(dataset=dict(metainfo=dict(classes=classes))))' in said
        assert '  val_dataloader = dict(dataset=dict(metainfo=dict(classes=classes)))' in said
        assert '  model = dict(roi_head=dict(mask_head=dict(num_classes=2)))' in said
        assert '  # model.roi_head.bbox_head.0.num_classes = 2' in said

    def test_the_lines_to_write_make_a_config_that_passes(self, tmp_path: Path) -> None:
        for split in ('train', 'val'):
            write_coco(tmp_path / f'{split}.json', ['balloon', 'kite'])
        cfg = detection(tmp_path, None, 80)
        lines = [line.strip() for line in problems(cfg, 'train', 'val').splitlines() if ' = ' in line]
        (tmp_path / 'change.py').write_text('\n'.join(lines))
        change = Config.fromfile(str(tmp_path / 'change.py')).to_dict()
        change.pop('classes')
        cfg.merge_from_dict(change)
        check_classes(cfg, ('train', 'val'))

    def test_names_in_another_order_than_the_file_are_refused(self, tmp_path: Path) -> None:
        write_coco(tmp_path / 'train.json', ['cat', 'dog', 'bird'])
        said = problems(detection(tmp_path, ('dog', 'cat')))
        assert 'order of the file' in said and "classes = ('cat', 'dog')" in said

    def test_two_categories_of_one_name_are_refused(self, tmp_path: Path) -> None:
        write_coco(tmp_path / 'train.json', ['cat', 'dog', 'cat'])
        assert "several categories with the same name: 'cat'" in problems(detection(tmp_path, ('cat', 'dog')))

    def test_training_and_validation_that_disagree_are_refused(self, tmp_path: Path) -> None:
        write_coco(tmp_path / 'train.json', ['cat', 'dog', 'bird'])
        write_coco(tmp_path / 'val.json', ['bird', 'cat', 'dog'])
        said = problems(detection(tmp_path, ('cat', 'dog', 'bird'), val=('bird', 'cat', 'dog')), 'train', 'val')
        assert 'train_dataloader.dataset and val_dataloader.dataset number their classes differently' in said
        said = problems(detection(tmp_path, ('cat', 'dog'), val=('bird', 'cat', 'dog')), 'train', 'val')
        assert "val_dataloader.dataset alone: 'bird'" in said

    def test_the_metric_has_a_file_of_its_own(self, tmp_path: Path) -> None:
        for split in ('train', 'val'):
            write_coco(tmp_path / f'{split}.json', ['cat', 'dog'])
        cfg = detection(tmp_path, ('cat', 'dog'))
        cfg.val_evaluator.ann_file = str(write_coco(tmp_path / 'other.json', ['Cat', 'dog']))
        said = problems(cfg, 'train', 'val')
        assert 'val_evaluator' in said and "'cat' (in the file: 'Cat')" in said

    def test_category_ids_that_the_file_does_not_define(self, tmp_path: Path, notes: list[str]) -> None:
        write_coco(tmp_path / 'train.json', ['cat', 'dog'], ids=[0, 1])
        assert 'do not define: 0. Their boxes are dropped' in problems(detection(tmp_path, ('cat', 'dog')))
        notes.clear()
        write_coco(tmp_path / 'train.json', ['cat', 'dog'], ids=[1, 2, 7])
        check_classes(detection(tmp_path, ('cat', 'dog'), 2), ('train',))
        assert len(notes) == 1 and 'do not define: 7' in notes[0]

    def test_a_class_without_annotations_is_told_of_the_training_set(self, tmp_path: Path, notes: list[str]) -> None:
        write_coco(tmp_path / 'train.json', ['cat', 'dog'], ids=[1])
        check_classes(detection(tmp_path, ('cat', 'dog'), 2), ('train',))
        assert len(notes) == 1 and notes[0].endswith("has no annotation of 'dog'")

    @pytest.mark.parametrize(
        ('text', 'reason'),
        [
            ('', 'not valid JSON'),
            ('{"images": [', 'not valid JSON'),
            ('[]', 'holds a list'),
            ('{}', "no list 'categor"),
            ('{"categories": ["cat"]}', "are not dicts with 'id' and 'name'"),
        ],
    )
    def test_files_that_are_no_coco_files(self, tmp_path: Path, text: str, reason: str) -> None:
        (tmp_path / 'train.json').write_text(text)
        assert reason in problems(detection(tmp_path, ('cat', 'dog')))

    def test_large_files_are_searched_and_not_parsed(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, notes: list[str]
    ) -> None:
        monkeypatch.setattr('mmevm.engine.checks.annotations._PARSED_SIZE', 0)
        monkeypatch.setattr('mmevm.engine.checks.annotations._parse', None)
        info = dict(categories=[1, 2], text='"categories": [{"id": 1, "name": "no"}]')
        path = write_coco(tmp_path / 'train.json', ['cat', 'Ding', 'Ährenfeld'], ids=[0, 1], info=info)
        path.write_text(json.dumps(json.loads(path.read_text()), ensure_ascii=False), encoding='utf-8')
        said = problems(detection(tmp_path, ('cat', 'Dingo', 'ährenfeld')))
        assert "'ährenfeld' (in the file: 'Ährenfeld')" in said
        assert len(notes) == 1 and 'do not define: 0' in notes[0]
        path.write_text(path.read_text()[:-40])
        assert 'it is truncated' in problems(detection(tmp_path, ('cat',)))

    def test_a_subclass_with_names_of_its_own_is_compared_too(self, tmp_path: Path) -> None:
        from mmdet.datasets import CocoDataset

        class Pets(CocoDataset):
            METAINFO = dict(classes=('cat', 'dog'), palette=[(1, 2, 3), (4, 5, 6)])

        write_coco(tmp_path / 'train.json', ['cat', 'Dog'])
        cfg = detection(tmp_path)
        cfg.train_dataloader.dataset.type = Pets
        assert "'dog' (in the file: 'Dog')" in problems(cfg)

    def test_datasets_that_mmdet_publishes_may_differ_from_their_files(self, tmp_path: Path, notes: list[str]) -> None:
        from mmdet.datasets import DeepFashionDataset

        names = ['Top', *DeepFashionDataset.METAINFO['classes'][1:]]
        write_coco(tmp_path / 'train.json', names)
        cfg = detection(tmp_path, None, len(names))
        cfg.train_dataloader.dataset.type = 'DeepFashionDataset'
        check_classes(cfg, ('train',))
        assert len(notes) == 1 and "'top' (in the file: 'Top')" in notes[0]


class TestLists:
    @pytest.mark.parametrize(
        ('value', 'said'),
        [
            (
                'cat',
                "is the string 'cat', each letter of which would be a class. A tuple of names needs a "
                "comma even for one: ('cat',)",
            ),
            ('cat, dog', "A tuple of names: ('cat', 'dog')"),
            ((), 'is empty'),
            ((0, 1), 'must hold names, got 0'),
            ({'cat': 0}, 'must be a list or tuple of names'),
        ],
    )
    @pytest.mark.parametrize('scope', ['mmdet', 'mmseg', 'mmpretrain'])
    def test_what_is_no_list_of_names_is_refused(self, scope: str, value: Any, said: str) -> None:
        dataset = dict(
            type={'mmdet': 'CocoDataset', 'mmseg': 'BaseSegDataset', 'mmpretrain': 'CustomDataset'}[scope],
            data_root='data',
            ann_file='a',
            metainfo=dict(classes=value),
        )
        cfg = Config(dict(default_scope=scope, model={}, train_dataloader=dict(dataset=dataset)))
        assert problems(cfg).startswith('train_dataloader.dataset.metainfo.classes ') and said in problems(cfg)

    def test_a_file_of_names_is_read(self, tmp_path: Path) -> None:
        write_coco(tmp_path / 'train.json', ['cat', 'traffic light'])
        (tmp_path / 'names.txt').write_text('cat\ntraffic light\n')
        cfg = detection(tmp_path, str(tmp_path / 'names.txt'), 2)
        check_classes(cfg, ('train',))
        cfg.train_dataloader.dataset.metainfo.classes = str(tmp_path / 'absent.txt')
        assert 'can only be the path of a file' in problems(cfg)

    def test_the_key_in_capitals_is_not_read(self, tmp_path: Path) -> None:
        write_coco(tmp_path / 'train.json', ['cat'])
        cfg = detection(tmp_path)
        cfg.train_dataloader.dataset.metainfo = dict(CLASSES=('cat',))
        assert 'metainfo.CLASSES is not read' in problems(cfg)

    def test_a_palette_needs_a_colour_for_each_class(self, tmp_path: Path) -> None:
        write_coco(tmp_path / 'train.json', ['cat', 'dog'])
        cfg = detection(tmp_path, ('cat', 'dog'), 2)
        cfg.train_dataloader.dataset.metainfo.palette = [(1, 2, 3)]
        assert 'the palette has 1 colours for 2 classes' in problems(cfg)

    def test_a_dataset_that_cannot_be_built_is_named(self, tmp_path: Path) -> None:
        dataset = dict(type='CUB', data_root=str(tmp_path), split='validation')
        cfg = Config(dict(default_scope='mmpretrain', model={}, train_dataloader=dict(dataset=dataset)))
        assert 'train_dataloader.dataset (CUB) cannot be built: The split must be one of' in problems(cfg)


def voc(root: Path, classes: Sequence[str], objects: Sequence[str], split: str = 'train') -> dict:
    """A dataset of one image in Pascal VOC's layout."""
    for folder in ('ImageSets/Main', 'Annotations', 'JPEGImages'):
        (root / folder).mkdir(parents=True, exist_ok=True)
    (root / f'ImageSets/Main/{split}.txt').write_text(f'{split}1\n')
    box = '<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>4</xmax><ymax>4</ymax></bndbox>'
    parts = ''.join(
        f'<object><name>{name}</name><difficult>0</difficult>{box}<part><name>head</name></part></object>'
        for name in objects
    )
    (root / f'Annotations/{split}1.xml').write_text(
        f'<annotation><size><width>8</width><height>8</height></size>{parts}</annotation>'
    )
    return dict(
        type='VOCDataset',
        data_root=f'{root}/',
        ann_file=f'ImageSets/Main/{split}.txt',
        data_prefix=dict(sub_data_root=''),
        metainfo=dict(classes=tuple(classes)),
    )


class TestXml:
    def config(self, *arguments: Any, count: int = 2) -> Config:
        return Config(
            dict(
                default_scope='mmdet',
                model=dict(bbox_head=dict(type='RetinaHead', num_classes=count)),
                train_dataloader=dict(dataset=voc(*arguments)),
            )
        )

    def test_names_that_agree_pass_and_others_are_counted(self, tmp_path: Path, notes: list[str]) -> None:
        check_classes(self.config(tmp_path, ['cat', 'dog'], ['cat', 'dog', 'cow', 'cow']), ('train',))
        assert notes == ["train_dataloader.dataset: 2 objects in 1 XML files are of no class and left out: 'cow'"]

    def test_a_name_in_other_case_or_no_name_at_all_is_refused(self, tmp_path: Path) -> None:
        said = problems(self.config(tmp_path, ['cat', 'dog'], ['cat', 'Dog']))
        assert "'dog' (in the files: 'Dog')" in said and "classes = ('Dog', 'cat')" in said
        assert 'in both: none' in problems(self.config(tmp_path, ['cat', 'dog'], ['car', 'plane']))

    def test_a_rare_class_may_be_absent(self, tmp_path: Path, notes: list[str]) -> None:
        check_classes(self.config(tmp_path, ['cat', 'dog'], ['cat']), ('train',))
        assert notes == ["train_dataloader.dataset: 1 XML files have no object of 'dog'"]

    def test_annotation_files_that_cannot_be_read_are_named(self, tmp_path: Path) -> None:
        cfg = self.config(tmp_path, ['cat'], ['cat'])
        (tmp_path / 'Annotations/train1.xml').write_text('')
        assert f'{tmp_path}/Annotations/train1.xml: not valid XML' in problems(cfg)

    def test_more_names_than_the_head_has_classes(self, tmp_path: Path) -> None:
        said = problems(self.config(tmp_path, ['cat', 'dog', 'cow'], ['cat'], count=2))
        assert "3 classes, 'cat', 'dog', 'cow', are more than model.bbox_head.num_classes = 2 allows" in said
        assert 'model = dict(bbox_head=dict(num_classes=3))' in said

    def test_mmpretrains_multi_label_form(self, tmp_path: Path) -> None:
        voc(tmp_path, [], ['cat', 'Dog'])
        dataset = dict(type='VOC', data_root=str(tmp_path), split='train', metainfo=dict(classes=('cat', 'dog')))
        cfg = Config(dict(default_scope='mmpretrain', model={}, train_dataloader=dict(dataset=dataset)))
        assert "'dog' (in the files: 'Dog')" in problems(cfg)


def classification(count: int, train: dict, val: dict | None = None, topk: Any = (1,), **top: Any) -> Config:
    def loader(dataset: dict) -> dict:
        return dict(dataset=dict(dict(type='CustomDataset'), **dataset))

    return Config(
        dict(
            default_scope='mmpretrain',
            model=dict(head=dict(type='LinearClsHead', num_classes=count)),
            train_dataloader=loader(train),
            val_dataloader=loader(val or train),
            val_evaluator=dict(type='Accuracy', topk=topk),
            **top,
        )
    )


def folders(root: Path, *names: str) -> dict:
    for name in names:
        (root / name).mkdir(parents=True)
        (root / name / '1.jpg').touch()
    return dict(data_prefix=str(root))


class TestClassification:
    def test_folders_of_validation_have_to_be_those_of_training(self, tmp_path: Path) -> None:
        train, same = folders(tmp_path / 'train', 'ant', 'bee', 'cow'), folders(tmp_path / 'same', 'ant', 'bee', 'cow')
        check_classes(classification(3, train, same), ('train', 'val'))
        said = problems(classification(3, train, folders(tmp_path / 'val', 'ant', 'cow')), 'train', 'val')
        assert "train_dataloader.dataset alone: 'bee'" in said and 'val_dataloader.dataset alone: none' in said

    def test_a_hidden_folder_counts_as_a_class(self, tmp_path: Path) -> None:
        train = folders(tmp_path, '.ipynb_checkpoints', 'ant', 'bee')
        said = problems(classification(2, train))
        assert "3 classes, '.ipynb_checkpoints', 'ant', 'bee', are more than model.head.num_classes = 2" in said

    def test_names_have_to_be_as_many_as_folders_and_in_their_order(self, tmp_path: Path) -> None:
        train = folders(tmp_path, 'ant', 'bee')
        check_classes(classification(2, dict(train, metainfo=dict(classes=('Ant', 'Bee')))), ('train',))
        check_classes(classification(2, dict(train, classes=['first', 'second'])), ('train',))
        said = problems(classification(2, dict(train, metainfo=dict(classes=('bee', 'ant')))))
        assert 'in alphabetical order' in said and "classes = ('ant', 'bee')" in said
        said = problems(classification(3, dict(train, metainfo=dict(classes=('ant', 'bee', 'cow')))))
        assert 'has 2 folders, each of which is a class, and there are 3 names' in said
        said = problems(classification(1000, dict(train, type='ImageNet')))
        assert 'there are 1000 names' in said and "type='CustomDataset'" in said
        assert '  model = dict(head=dict(num_classes=2))' in said.splitlines()

    def listing(self, root: Path, *lines: str) -> dict:
        root.mkdir(exist_ok=True)
        (root / 'list.txt').write_text(''.join(f'{line}\n' for line in lines))
        return dict(ann_file=str(root / 'list.txt'), data_prefix=str(root))

    def test_class_ids_beyond_the_heads_are_refused_with_their_line(self, tmp_path: Path) -> None:
        train = self.listing(tmp_path, 'a 1.jpg 0', 'b.jpg 2', 'c.jpg 1')
        check_classes(classification(3, train), ('train',))
        said = problems(classification(2, train))
        assert f'line 2 of {tmp_path}/list.txt, b.jpg has the class id 2, and model.head.num_classes = 2' in said
        assert 'model = dict(head=dict(num_classes=3))' in said
        check_classes(classification(3, train, data_preprocessor=dict(num_classes=2)), ('train',))
        said = problems(classification(3, train, data_preprocessor=dict(num_classes=2, to_onehot=True)))
        assert 'data_preprocessor.num_classes = 2 allows 0 to 1' in said
        said = problems(classification(3, dict(train, metainfo=dict(classes=('a', 'b')))))
        assert 'there are 2 names of classes, for the ids 0 to 1, and line 2' in said

    @pytest.mark.parametrize('line', ['b.jpg cat', 'b.jpg', 'b.jpg,1', ''])
    def test_lines_of_another_format_are_quoted(self, tmp_path: Path, line: str) -> None:
        assert f'line 2 is {line!r}' in problems(classification(3, self.listing(tmp_path, 'a.jpg 0', line)))

    def test_negative_ids(self, tmp_path: Path) -> None:
        assert 'line 1 of' in problems(classification(3, self.listing(tmp_path, 'a.jpg -1')))

    def test_unlabelled_lists_are_left_alone(self, tmp_path: Path) -> None:
        check_classes(classification(3, dict(self.listing(tmp_path, 'a.jpg'), with_label=False)), ('train',))

    @pytest.mark.parametrize(
        ('labels', 'count', 'said'),
        [
            ([0, 2], 2, 'has the class id 2, and model.head.num_classes = 2'),
            ([[0, 1], [2]], 2, 'class id 2'),
        ],
    )
    def test_mmengines_json(self, tmp_path: Path, labels: list, count: int, said: str) -> None:
        samples = [dict(img_path=f'{index}.jpg', gt_label=label) for index, label in enumerate(labels)]
        content = dict(metainfo=dict(classes=['a', 'b', 'c']), data_list=samples)
        (tmp_path / 'a.json').write_text(json.dumps(content))
        train = dict(type='MultiLabelDataset', ann_file='a.json', data_root=str(tmp_path))
        assert said in problems(classification(count, train))
        assert "in the file alone: 'c'" in problems(classification(3, dict(train, metainfo=dict(classes=('a', 'b')))))


def segmentation(root: Path, values: Sequence[int], count: int, mode: str = 'L', **dataset: Any) -> Config:
    """A dataset of one label map with these values."""
    for name in ('images', 'maps'):
        (root / name).mkdir(parents=True, exist_ok=True)
    labels = np.resize(np.array(values, np.int32), (8, 8))
    image = Image.fromarray(labels.astype(np.uint16 if mode == 'I;16' else np.uint8))
    image.convert(mode).save(root / 'maps/1.png') if mode == 'RGB' else image.save(root / 'maps/1.png')
    Image.new('RGB', (8, 8)).save(root / 'images/1.jpg')
    settings = dict(
        type='BaseSegDataset',
        data_root=str(root),
        pipeline=[dict(type='LoadAnnotations')],
        data_prefix=dict(img_path='images', seg_map_path='maps'),
        metainfo=dict(classes=tuple('abcdefgh'[:count])),
    )
    return Config(
        dict(
            default_scope='mmseg',
            model=dict(
                decode_head=dict(type='FCNHead', num_classes=count),
                auxiliary_head=[dict(type='FCNHead', num_classes=count)],
            ),
            train_dataloader=dict(dataset=dict(settings, **dataset)),
        )
    )


class TestSegmentation:
    def test_ids_within_the_classes_and_ignored_ones_pass(self, tmp_path: Path) -> None:
        check_classes(segmentation(tmp_path, [0, 1, 2, 255], 3), ('train',))
        check_classes(segmentation(tmp_path, [0, 1, 3], 3, reduce_zero_label=True), ('train',))

    def test_ids_beyond_the_classes_are_refused(self, tmp_path: Path) -> None:
        said = problems(segmentation(tmp_path, [0, 1, 3], 3))
        assert f'{tmp_path}/maps/1.png has the class id 3, and model.decode_head.num_classes = 3 allows 0 to 2' in said
        assert 'reduce_zero_label=True' in said and 'model.auxiliary_head.0.num_classes = 3' in said

    def test_colours_and_ids_of_two_bytes_are_refused(self, tmp_path: Path) -> None:
        assert 'maps/1.png has 3 channels' in problems(segmentation(tmp_path, [0, 1], 3, mode='RGB'))
        assert 'has the class id 300' in problems(segmentation(tmp_path, [0, 300], 3, mode='I;16'))

    def test_names_beyond_a_known_list_are_refused_with_the_nearest(self, tmp_path: Path) -> None:
        cfg = segmentation(tmp_path, [0], 3, type='ADE20KDataset', metainfo=dict(classes=('wall', 'Sky', 'robot')))
        said = problems(cfg)
        assert "'Sky' (in ADE20KDataset: 'sky'), 'robot'" in said and "type='BaseSegDataset'" in said
        cfg.train_dataloader.dataset.metainfo.classes = ('sky', 'wall', 'tree')
        check_classes(cfg, ('train',))

    def test_a_dataset_without_names(self, tmp_path: Path) -> None:
        cfg = segmentation(tmp_path, [0], 3)
        cfg.train_dataloader.dataset.pop('metainfo')
        assert 'no class has a name' in problems(cfg)

    def test_channels_have_to_be_the_classes(self, tmp_path: Path) -> None:
        cfg = segmentation(tmp_path, [0], 3)
        cfg.model.decode_head.out_channels = 2
        assert 'model.decode_head.out_channels = 2 must be model.decode_head.num_classes = 3' in problems(cfg)
        cfg = segmentation(tmp_path, [0, 1], 2)
        cfg.model.decode_head.out_channels = 1
        check_classes(cfg, ('train',))


def test_class_counts_finds_heads_and_leaves_proposals_and_other_classes_out() -> None:
    head = dict(type='Shared2FCBBoxHead', num_classes=3, loss_cls=dict(type='SeesawLoss', num_classes=3))
    roi_head = dict(
        bbox_head=[head, dict(head, num_classes=4)],
        mask_head=dict(type='FCNMaskHead'),
        semantic_head=dict(type='FusedSemanticHead', num_classes=183),
    )
    model = dict(
        detector=dict(rpn_head=dict(type='RPNHead', num_classes=1), roi_head=roi_head, backbone=dict(num_classes=1000)),
        panoptic_head=dict(num_things_classes=80, num_stuff_classes=53),
    )
    assert class_counts(Config(dict(default_scope='mmdet', model=model))) == {
        'model.detector.roi_head.bbox_head.0.num_classes': 3,
        'model.detector.roi_head.bbox_head.0.loss_cls.num_classes': 3,
        'model.detector.roi_head.bbox_head.1.num_classes': 4,
        'model.detector.roi_head.bbox_head.1.loss_cls.num_classes': 3,
        'model.detector.roi_head.mask_head.num_classes': 80,
        'model.panoptic_head.num_things_classes': 133,
    }


def test_heads_of_other_libraries_that_count_something_else_pass(tmp_path: Path) -> None:
    cfg = segmentation(tmp_path, [0, 1, 2], 3)
    cfg.model = dict(
        decode_head=dict(type='Mask2FormerHead', num_classes=3, out_channels=256),
        auxiliary_head=[dict(type='STDCHead', num_classes=2)],
    )
    check_classes(cfg, ('train',))
    assert class_counts(cfg) == {'model.decode_head.num_classes': 3}


def test_panoptic_models_count_objects_and_regions(tmp_path: Path, notes: list[str]) -> None:
    from mmdet.datasets import CocoPanopticDataset

    write_coco(tmp_path / 'train.json', CocoPanopticDataset.METAINFO['classes'])
    model = dict(
        roi_head=dict(bbox_head=dict(num_classes=80)),
        panoptic_fusion_head=dict(num_things_classes=80, num_stuff_classes=53),
    )
    cfg = detection(tmp_path, **model)
    cfg.train_dataloader.dataset.update(type='CocoPanopticDataset', data_prefix=dict(img='', seg=''))
    check_classes(cfg, ('train',))
    assert notes == []
    cfg.model.roi_head.bbox_head.num_classes = 79
    assert '80 classes' in problems(cfg)


def test_a_tracking_dataset_may_have_more_names_than_its_detector() -> None:
    video = dict(type='MOTChallengeDataset', data_root='data', ann_file='a.json')
    cfg = Config(
        dict(
            default_scope='mmdet',
            model=dict(detector=dict(bbox_head=dict(type='YOLOXHead', num_classes=1))),
            train_dataloader=dict(dataset=dict(video, metainfo=dict(classes=('pedestrian',)))),
            val_dataloader=dict(dataset=video),
        )
    )
    check_classes(cfg, ('train', 'val'))


def test_annotations_in_an_unforeseen_form_are_told_and_not_refused(tmp_path: Path, notes: list[str]) -> None:
    (tmp_path / 'a.json').write_text(json.dumps(dict(metainfo={}, data_list=['a.jpg'])))
    train = dict(type='MultiLabelDataset', ann_file='a.json', data_root=str(tmp_path))
    check_classes(classification(3, train), ('train',))
    assert len(notes) == 1 and 'could not be compared with its annotations: AttributeError' in notes[0]


def test_fewer_classes_than_the_head_has_are_told(tmp_path: Path, notes: list[str]) -> None:
    write_coco(tmp_path / 'train.json', ['cat', 'dog'])
    check_classes(detection(tmp_path, ('cat', 'dog'), 80), ('train',))
    assert notes == [
        'model.bbox_head.num_classes = 80, and train_dataloader.dataset has 2 classes: the model has '
        'outputs that nothing trains.'
    ]


@pytest.mark.parametrize('config', ['retinanet_evm_t', 'mask_rcnn_evm_t_1x', 'upernet_evm_t', 'classifier_evm_t'])
def test_the_classes_of_our_own_configs_and_miniature_data_agree(config: str, tmp_path: Path, notes: list[str]) -> None:
    from demo.mini_data import make_mini_data
    from mmevm.engine.checks.paths import check_data, move_data_root

    kind = dict(r='coco', m='coco', u='ade20k', c='imagenet')[config[0]]
    made = make_mini_data(tmp_path, [kind], image_size=64, train_images=2, val_images=1)[0]
    cfg = Config.fromfile(Path(__file__).parents[2] / f'configs/{config}.py')
    move_data_root(cfg, str(made.data_root))
    check_data(cfg, ('train', 'val', 'test'), '')
    check_classes(cfg, ('train', 'val', 'test'))
    assert [note for note in notes if 'no annotation of' not in note] == []
