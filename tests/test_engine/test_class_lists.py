"""Class names in a config against the categories of COCO files, and lists that are none."""

import json
from pathlib import Path
from typing import Any

import pytest
from mmengine.config import Config

from mmevm.engine.checks.classes import check_classes

from .datasets import detection, problems, write_coco

pytestmark = pytest.mark.openmmlab


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
        message = problems(detection(tmp_path, ('cat', 'dog', 'traffic light')))
        assert "in both: 'cat'" in message
        assert (
            "in the config alone: 'dog' (in the file: 'Dog'), 'traffic light' (in the file: 'traffic-light')" in message
        )
        assert "classes = ('cat', 'Dog', 'traffic-light')" in message

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
        message = problems(cfg, 'train', 'val').splitlines()
        assert "  classes = ('balloon', 'kite flyer')" in message
        assert '  train_dataloader = dict(dataset=dict(dataset=dict(metainfo=dict(classes=classes))))' in message
        assert '  val_dataloader = dict(dataset=dict(metainfo=dict(classes=classes)))' in message
        assert '  model = dict(roi_head=dict(mask_head=dict(num_classes=2)))' in message
        assert '  # model.roi_head.bbox_head.0.num_classes = 2' in message

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
        message = problems(detection(tmp_path, ('dog', 'cat')))
        assert 'order of the file' in message and "classes = ('cat', 'dog')" in message

    def test_two_categories_of_one_name_are_refused(self, tmp_path: Path) -> None:
        write_coco(tmp_path / 'train.json', ['cat', 'dog', 'cat'])
        assert "several categories with the same name: 'cat'" in problems(detection(tmp_path, ('cat', 'dog')))

    def test_training_and_validation_that_disagree_are_refused(self, tmp_path: Path) -> None:
        write_coco(tmp_path / 'train.json', ['cat', 'dog', 'bird'])
        write_coco(tmp_path / 'val.json', ['bird', 'cat', 'dog'])
        message = problems(detection(tmp_path, ('cat', 'dog', 'bird'), val=('bird', 'cat', 'dog')), 'train', 'val')
        assert 'train_dataloader.dataset and val_dataloader.dataset number their classes differently' in message
        message = problems(detection(tmp_path, ('cat', 'dog'), val=('bird', 'cat', 'dog')), 'train', 'val')
        assert "val_dataloader.dataset alone: 'bird'" in message

    def test_the_metric_has_a_file_of_its_own(self, tmp_path: Path) -> None:
        for split in ('train', 'val'):
            write_coco(tmp_path / f'{split}.json', ['cat', 'dog'])
        cfg = detection(tmp_path, ('cat', 'dog'))
        cfg.val_evaluator.ann_file = str(write_coco(tmp_path / 'other.json', ['Cat', 'dog']))
        message = problems(cfg, 'train', 'val')
        assert 'val_evaluator' in message and "'cat' (in the file: 'Cat')" in message

    def test_category_ids_that_the_file_does_not_define(self, tmp_path: Path, notes: list[str]) -> None:
        write_coco(tmp_path / 'train.json', ['cat', 'dog'], ids=[0, 1])
        assert 'do not define: 0. Their boxes are dropped' in problems(detection(tmp_path, ('cat', 'dog')))
        notes.clear()
        write_coco(tmp_path / 'train.json', ['cat', 'dog'], ids=[1, 2, 7])
        check_classes(detection(tmp_path, ('cat', 'dog'), 2), ('train',))
        assert len(notes) == 1 and 'do not define: 7' in notes[0]

    def test_a_class_without_annotations_is_reported_for_the_training_set(
        self, tmp_path: Path, notes: list[str]
    ) -> None:
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
        message = problems(detection(tmp_path, ('cat', 'Dingo', 'ährenfeld')))
        assert "'ährenfeld' (in the file: 'Ährenfeld')" in message
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
        ('value', 'message'),
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
    def test_what_is_no_list_of_names_is_refused(self, scope: str, value: Any, message: str) -> None:
        dataset = dict(
            type={'mmdet': 'CocoDataset', 'mmseg': 'BaseSegDataset', 'mmpretrain': 'CustomDataset'}[scope],
            data_root='data',
            ann_file='a',
            metainfo=dict(classes=value),
        )
        cfg = Config(dict(default_scope=scope, model={}, train_dataloader=dict(dataset=dataset)))
        assert problems(cfg).startswith('train_dataloader.dataset.metainfo.classes ') and message in problems(cfg)

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
