"""`mmevm.engine.hooks.batches`: batches of one image that batch norms cannot train on are refused before training."""

import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.dataset import DefaultSampler, InfiniteSampler, default_collate
from mmengine.model import BaseModel
from torch import Tensor, nn
from torch.utils.data import BatchSampler, DataLoader

from mmevm.apis.train import main as run_train
from mmevm.engine.hooks.batches import SingleImageCheck, norms_of_one_value, smallest_batch
from mmevm.errors import UsageError

from ..test_tools.small_classifier import TRAIN_IMAGES, write_config, write_pictures


class Images:
    """Images of zeros, with random numbers drawn as by an augmentation."""

    def __init__(self, count: int, size: int) -> None:
        self.count, self.size = count, size

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        random.random(), np.random.rand(), torch.rand(1)
        return {'inputs': torch.zeros(3, self.size, self.size)}


class Halving(BaseModel):
    """A backbone that halves the map and a head with a norm after global pooling; one norm is frozen."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 4, 2, stride=2), nn.BatchNorm2d(4), nn.BatchNorm2d(4))
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(4), nn.Flatten())

    def train(self, mode: bool = True) -> 'Halving':
        super().train(mode)
        self.backbone[2].eval()
        return self

    def forward(self, inputs: Tensor, mode: str = 'tensor') -> Tensor:
        return self.head(self.backbone(inputs))


def loader(images: int, batch: int, size: int = 8, sampler: type = DefaultSampler, **options: Any) -> DataLoader:
    data = Images(images, size)
    sampler = sampler(data, shuffle=True)
    if options.pop('batch_sampler', False):
        return DataLoader(data, batch_sampler=BatchSampler(sampler, batch, **options), collate_fn=default_collate)
    return DataLoader(data, batch, sampler=sampler, collate_fn=default_collate, **options)


@pytest.mark.parametrize('batch_sampler', [False, True])
@pytest.mark.parametrize(
    'images, batch, drop_last, expected',
    [(9, 4, False, 1), (9, 4, True, 4), (8, 4, False, 4), (10, 4, False, 2), (3, 4, False, 3), (5, 1, False, 1)],
)
def test_smallest_batch(images: int, batch: int, drop_last: bool, expected: int, batch_sampler: bool) -> None:
    got = smallest_batch(loader(images, batch, drop_last=drop_last, batch_sampler=batch_sampler))
    assert got == (expected, batch)


def test_smallest_batch_of_endless_data_is_whole() -> None:
    assert smallest_batch(loader(9, 4, sampler=InfiniteSampler)) == (4, 4)


def test_smallest_batch_is_that_of_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr('mmengine.dataset.sampler.get_dist_info', lambda: (1, 2))
    assert smallest_batch(loader(9, 4)) == (1, 4)  # five images each
    assert smallest_batch(loader(8, 4)) == (4, 4)


@pytest.mark.parametrize(
    'size, names', [(2, ['backbone.1', 'head.1']), (8, ['head.1'])], ids=['the whole map', 'pooled']
)
def test_norms_of_one_value_are_those_that_fail(size: int, names: list[str]) -> None:
    model = Halving()
    assert norms_of_one_value(model, loader(9, 4, size)) == names
    with pytest.raises(ValueError, match='more than 1 value per channel'):
        model.train()(torch.zeros(1, 3, size, size))


def test_norms_of_one_value_leaves_model_and_chance_as_they_were() -> None:
    model, data = Halving().eval(), loader(9, 4, 2)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    assert norms_of_one_value(model, data)
    assert not model.training and not model._forward_pre_hooks and not model.head[1]._forward_pre_hooks
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert (random.getstate(), np.random.get_state()[1].tolist()) == states[:2]
    assert torch.equal(torch.get_rng_state(), states[2])


def runner(model: nn.Module, data: DataLoader, **settings: Any) -> SimpleNamespace:
    cfg = ConfigDict(train_dataloader=settings)
    return SimpleNamespace(model=model, train_dataloader=data, cfg=cfg)


@pytest.mark.parametrize(
    'images, batch, settings, parts',
    [
        (
            9,
            4,
            {},
            [
                'last batch of every epoch has one image (9 images in batches of 4)',
                'norms, such as backbone.1',
                ' train_dataloader.drop_last=True',
                'another train_dataloader.batch_size',
            ],
        ),
        (9, 4, {'batch_sampler': {'type': 'X'}}, [' train_dataloader.batch_sampler.drop_last=True']),
        (5, 1, {}, ['train_dataloader.batch_size=1 makes batches of one image', 'batch_size=2 or more']),
    ],
)
def test_single_images_are_refused_with_the_ways_out(images: int, batch: int, settings: dict, parts: list[str]) -> None:
    with pytest.raises(UsageError) as error:
        SingleImageCheck().before_train(runner(Halving(), loader(images, batch, 2), **settings))
    message = str(error.value)
    assert all(part in message for part in [*parts, 'norm_cfg'])
    assert 'norm_eval' not in message  # would not help the head


def test_wrapped_models_are_checked_too() -> None:
    with pytest.raises(UsageError, match='backbone'):
        SingleImageCheck().before_train(runner(nn.DataParallel(Halving()), loader(9, 4, 2)))


def test_norm_eval_is_a_way_out_where_it_helps() -> None:
    model = Halving()
    model.head[1] = nn.Identity()
    with pytest.raises(UsageError, match=r'model\.backbone\.norm_eval=True'):
        SingleImageCheck().before_train(runner(model, loader(9, 4, 2)))


def test_one_image_alone_is_not_left_out() -> None:
    with pytest.raises(UsageError) as error:
        SingleImageCheck().before_train(runner(Halving(), loader(1, 4, 2)))
    assert 'drop_last' not in str(error.value)


@pytest.mark.parametrize('images, batch', [(8, 4), (10, 4)])
def test_other_batches_are_not_looked_at(images: int, batch: int) -> None:
    SingleImageCheck().before_train(runner(Halving(), loader(images, batch, 2)))


def test_larger_maps_train_on_single_images() -> None:
    model = Halving()
    model.head[1] = nn.Identity()
    SingleImageCheck().before_train(runner(model, loader(9, 4, 8)))


@pytest.mark.openmmlab
def test_train_refuses_a_last_batch_of_one_image_before_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    write_config(tmp_path / 'small.py', write_pictures(tmp_path / 'data'), '', batch=TRAIN_IMAGES - 1)
    assert run_train(['small.py']) == 2
    captured = capsys.readouterr()
    assert f'({TRAIN_IMAGES} images in batches of {TRAIN_IMAGES - 1})' in captured.err
    assert 'backbone.layers.3' in captured.err and 'model.backbone.norm_eval=True' in captured.err
    assert not list(tmp_path.glob('losses/*'))
