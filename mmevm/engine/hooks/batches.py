"""Batches of one image on which batch norms cannot be trained, found before training starts."""

import contextlib
import random
from collections.abc import Iterator, Sized
from typing import Any

import numpy as np
import torch
from mmengine.dataset import InfiniteSampler
from mmengine.dist import get_world_size
from mmengine.hooks import Hook
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.data import DataLoader

from mmevm.engine.hooks.weights import unwrap
from mmevm.errors import UsageError

_MESSAGE = (
    '{cause}, and at the size of the training images {count} of the batch norms, such as {name}, would see one value '
    'per channel, which has no batch statistics. Use --cfg-options {ways}.'
)


def smallest_batch(loader: DataLoader) -> tuple[int, int] | None:
    """Return the sizes of the smallest batch of an epoch in this process and of the others, None if unknown."""
    batches = loader.batch_sampler
    size, sampler = getattr(batches, 'batch_size', None), getattr(batches, 'sampler', None)
    if size is None or not isinstance(sampler, Sized):
        return None
    remainder = len(sampler) % size
    if getattr(batches, 'drop_last', False) or isinstance(sampler, InfiniteSampler):
        remainder = 0
    return remainder or size, size


@contextlib.contextmanager
def _kept_random_state() -> Iterator[None]:
    """Restore the random number generators afterwards."""
    states = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        try:
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])


def norms_of_one_value(model: nn.Module, loader: DataLoader) -> list[str]:
    """Find the batch norms that would train on one value per channel in a batch of the loader's first image.

    Returns:
        list[str]: Their names in the order of the forward pass; the model is not changed.
    """
    was_training = model.training
    found: dict[str, None] = {}
    model.train()
    # Synchronised norms take their statistics from all processes.
    norms: dict[nn.Module, str] = {
        module: name
        for name, module in model.named_modules()
        if isinstance(module, _BatchNorm)
        and module.training
        and not (isinstance(module, nn.SyncBatchNorm) and get_world_size() > 1)
    }

    def check(module: nn.Module, inputs: tuple) -> None:
        if inputs[0].numel() == inputs[0].shape[1]:
            found[norms[module]] = None

    handles = [module.register_forward_pre_hook(check) for module in norms]
    # Evaluation mode has the same shapes, changes no statistics and does not fail on single values. Models that cannot
    # be run like this are left to training.
    model.eval()
    try:
        with _kept_random_state(), torch.no_grad(), contextlib.suppress(Exception):
            batch = loader.collate_fn([loader.dataset[0]])
            model(**model.get_submodule('data_preprocessor')(batch, True), mode='tensor')
    finally:
        for handle in handles:
            handle.remove()
        model.train(was_training)
    return list(found)


def _ways_out(cfg: Any, names: list[str], images: int, size: int) -> str:
    if size == 1:
        ways = ['train_dataloader.batch_size=2 or more']
    else:
        ways = ['another train_dataloader.batch_size']
        if images > size:
            key = 'train_dataloader.batch_sampler' if cfg.train_dataloader.get('batch_sampler') else 'train_dataloader'
            ways.insert(0, f'{key}.drop_last=True to leave that batch out')
    if all(name.startswith('backbone.') for name in names):
        ways.append('model.backbone.norm_eval=True to train with the running statistics of the norms')
        ways.append('larger images')
    else:
        ways.append('group norms in the heads (norm_cfg)')
    return ', or '.join(ways)


class SingleImageCheck(Hook):
    """Refuses batches of one image in which a batch norm would see one value per channel before the first iteration.

    PyTorch would raise "Expected more than 1 value per channel when training", if only the last batch has one image at
    the end of the first epoch.
    """

    def before_train(self, runner: Any) -> None:
        """Check the sizes of the batches and, if one has a single image, of its feature maps.

        Raises:
            UsageError: There are such batches and norms.
        """
        model = unwrap(runner.model)
        sizes = smallest_batch(runner.train_dataloader)
        if sizes is None or sizes[0] != 1 or not hasattr(model, 'data_preprocessor'):
            return
        names = norms_of_one_value(model, runner.train_dataloader)
        if not names:
            return
        size, images = sizes[1], len(runner.train_dataloader.batch_sampler.sampler)
        share = ' in each process' if get_world_size() > 1 else ''
        cause = f'The last batch of every epoch has one image ({images} images{share} in batches of {size})'
        if size == 1:
            cause = 'train_dataloader.batch_size=1 makes batches of one image'
        ways = _ways_out(runner.cfg, names, images, size)
        raise UsageError(_MESSAGE.format(cause=cause, count=len(names), name=names[0], ways=ways))
