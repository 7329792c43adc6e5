"""Class lists against annotations in other formats: XML, folders, lists, JSON of MMEngine and label maps."""

import json
from pathlib import Path
from typing import Any

import pytest
from mmengine.config import Config

from mmevm.engine.checks.classes import check_classes

from .datasets import classification, folders, problems, segmentation, voc

pytestmark = pytest.mark.openmmlab


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
        message = problems(self.config(tmp_path, ['cat', 'dog'], ['cat', 'Dog']))
        assert "'dog' (in the files: 'Dog')" in message and "classes = ('Dog', 'cat')" in message
        assert 'in both: none' in problems(self.config(tmp_path, ['cat', 'dog'], ['car', 'plane']))

    def test_a_rare_class_may_be_absent(self, tmp_path: Path, notes: list[str]) -> None:
        check_classes(self.config(tmp_path, ['cat', 'dog'], ['cat']), ('train',))
        assert notes == ["train_dataloader.dataset: 1 XML files have no object of 'dog'"]

    def test_annotation_files_that_cannot_be_read_are_named(self, tmp_path: Path) -> None:
        cfg = self.config(tmp_path, ['cat'], ['cat'])
        (tmp_path / 'Annotations/train1.xml').write_text('')
        assert f'{tmp_path}/Annotations/train1.xml: not valid XML' in problems(cfg)

    def test_more_names_than_the_head_has_classes(self, tmp_path: Path) -> None:
        message = problems(self.config(tmp_path, ['cat', 'dog', 'cow'], ['cat'], count=2))
        assert "3 classes, 'cat', 'dog', 'cow', are more than model.bbox_head.num_classes = 2 allows" in message
        assert 'model = dict(bbox_head=dict(num_classes=3))' in message

    def test_mmpretrains_multi_label_form(self, tmp_path: Path) -> None:
        voc(tmp_path, [], ['cat', 'Dog'])
        dataset = dict(type='VOC', data_root=str(tmp_path), split='train', metainfo=dict(classes=('cat', 'dog')))
        cfg = Config(dict(default_scope='mmpretrain', model={}, train_dataloader=dict(dataset=dataset)))
        assert "'dog' (in the files: 'Dog')" in problems(cfg)


class TestClassification:
    def test_folders_of_validation_have_to_be_those_of_training(self, tmp_path: Path) -> None:
        train, same = folders(tmp_path / 'train', 'ant', 'bee', 'cow'), folders(tmp_path / 'same', 'ant', 'bee', 'cow')
        check_classes(classification(3, train, same), ('train', 'val'))
        message = problems(classification(3, train, folders(tmp_path / 'val', 'ant', 'cow', 'dog')), 'train', 'val')
        assert "train_dataloader.dataset alone: 'bee'" in message and "val_dataloader.dataset alone: 'dog'" in message

    def test_a_hidden_folder_counts_as_a_class(self, tmp_path: Path) -> None:
        train = folders(tmp_path, '.ipynb_checkpoints', 'ant', 'bee')
        message = problems(classification(2, train))
        assert "3 classes, '.ipynb_checkpoints', 'ant', 'bee', are more than model.head.num_classes = 2" in message

    def test_names_have_to_be_as_many_as_folders_and_in_their_order(self, tmp_path: Path) -> None:
        train = folders(tmp_path, 'ant', 'bee')
        check_classes(classification(2, dict(train, metainfo=dict(classes=('Ant', 'Bee')))), ('train',))
        check_classes(classification(2, dict(train, classes=['first', 'second'])), ('train',))
        message = problems(classification(2, dict(train, metainfo=dict(classes=('bee', 'ant')))))
        assert 'in alphabetical order' in message and "classes = ('ant', 'bee')" in message
        message = problems(classification(3, dict(train, metainfo=dict(classes=('ant', 'bee', 'cow')))))
        assert 'has 2 folders, each of which is a class, and there are 3 names' in message
        message = problems(classification(1000, dict(train, type='ImageNet')))
        assert 'there are 1000 names' in message and "type='CustomDataset'" in message
        assert '  model = dict(head=dict(num_classes=2))' in message.splitlines()

    def listing(self, root: Path, *lines: str) -> dict:
        root.mkdir(exist_ok=True)
        (root / 'list.txt').write_text(''.join(f'{line}\n' for line in lines))
        return dict(ann_file=str(root / 'list.txt'), data_prefix=str(root))

    def test_class_ids_beyond_the_heads_are_refused_with_their_line(self, tmp_path: Path) -> None:
        train = self.listing(tmp_path, 'a 1.jpg 0', 'b.jpg 2', 'c.jpg 1')
        check_classes(classification(3, train), ('train',))
        message = problems(classification(2, train))
        assert f'line 2 of {tmp_path}/list.txt, b.jpg has the class id 2, and model.head.num_classes = 2' in message
        assert 'model = dict(head=dict(num_classes=3))' in message
        check_classes(classification(3, train, data_preprocessor=dict(num_classes=2)), ('train',))
        message = problems(classification(3, train, data_preprocessor=dict(num_classes=2, to_onehot=True)))
        assert 'data_preprocessor.num_classes = 2 allows 0 to 1' in message
        message = problems(classification(3, dict(train, metainfo=dict(classes=('a', 'b')))))
        assert 'there are 2 names of classes, for the ids 0 to 1, and line 2' in message

    @pytest.mark.parametrize('line', ['b.jpg cat', 'b.jpg', 'b.jpg,1', ''])
    def test_lines_of_another_format_are_quoted(self, tmp_path: Path, line: str) -> None:
        assert f'line 2 is {line!r}' in problems(classification(3, self.listing(tmp_path, 'a.jpg 0', line)))

    def test_negative_ids(self, tmp_path: Path) -> None:
        assert 'line 1 of' in problems(classification(3, self.listing(tmp_path, 'a.jpg -1')))

    def test_unlabelled_lists_are_left_alone(self, tmp_path: Path) -> None:
        check_classes(classification(3, dict(self.listing(tmp_path, 'a.jpg'), with_label=False)), ('train',))

    @pytest.mark.parametrize(
        ('labels', 'count', 'message'),
        [
            ([0, 2], 2, 'has the class id 2, and model.head.num_classes = 2'),
            ([[0, 1], [2]], 2, 'class id 2'),
        ],
    )
    def test_mmengines_json(self, tmp_path: Path, labels: list, count: int, message: str) -> None:
        samples = [dict(img_path=f'{index}.jpg', gt_label=label) for index, label in enumerate(labels)]
        content = dict(metainfo=dict(classes=['a', 'b', 'c']), data_list=samples)
        (tmp_path / 'a.json').write_text(json.dumps(content))
        train = dict(type='MultiLabelDataset', ann_file='a.json', data_root=str(tmp_path))
        assert message in problems(classification(count, train))
        assert "in the file alone: 'c'" in problems(classification(3, dict(train, metainfo=dict(classes=('a', 'b')))))


class TestSegmentation:
    def test_ids_within_the_classes_and_ignored_ones_pass(self, tmp_path: Path) -> None:
        check_classes(segmentation(tmp_path, [0, 1, 2, 255], 3), ('train',))
        check_classes(segmentation(tmp_path, [0, 1, 3], 3, reduce_zero_label=True), ('train',))

    def test_ids_beyond_the_classes_are_refused(self, tmp_path: Path) -> None:
        message = problems(segmentation(tmp_path, [0, 1, 3], 3))
        assert (
            f'{tmp_path}/maps/1.png has the class id 3, and model.decode_head.num_classes = 3 allows 0 to 2' in message
        )
        assert 'reduce_zero_label=True' in message and 'model.auxiliary_head.0.num_classes = 3' in message

    def test_colours_and_ids_of_two_bytes_are_refused(self, tmp_path: Path) -> None:
        assert 'maps/1.png has 3 channels' in problems(segmentation(tmp_path, [0, 1], 3, mode='RGB'))
        assert 'has the class id 300' in problems(segmentation(tmp_path, [0, 300], 3, mode='I;16'))

    def test_names_beyond_a_known_list_are_refused_with_the_nearest(self, tmp_path: Path) -> None:
        cfg = segmentation(tmp_path, [0], 3, type='ADE20KDataset', metainfo=dict(classes=('wall', 'Sky', 'robot')))
        message = problems(cfg)
        assert "'Sky' (in ADE20KDataset: 'sky'), 'robot'" in message and "type='BaseSegDataset'" in message
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
