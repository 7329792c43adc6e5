"""Configs with small datasets in the formats of the libraries, for the tests of class lists."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mmengine.config import Config
from PIL import Image

from mmevm.engine.checks.classes import check_classes
from mmevm.errors import UsageError


def problems(cfg: Config, *phases: str) -> str:
    with pytest.raises(UsageError) as caught:
        check_classes(cfg, phases or ('train',))
    return str(caught.value)


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
