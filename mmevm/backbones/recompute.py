"""Activation checkpointing of a backbone's blocks."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint


@contextmanager
def _frozen_statistics(module: nn.Module) -> Iterator[None]:
    """Keep batch norms from counting a batch twice while activation checkpointing recomputes it."""
    norms = [m for m in module.modules() if isinstance(m, _BatchNorm) and m.training]
    before = [(m.momentum, m.num_batches_tracked) for m in norms]
    for norm in norms:
        norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for norm, (momentum, batches) in zip(norms, before, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, batches


def _contexts(module: nn.Module) -> tuple[AbstractContextManager, AbstractContextManager]:
    return nullcontext(), _frozen_statistics(module)


def run_block(block: nn.Module, x: Tensor, with_cp: bool) -> Tensor:
    """``block(x)``; with ``with_cp`` its activations are computed again in the backward pass instead of being kept."""
    if with_cp and torch.is_grad_enabled():
        return checkpoint(block, x, use_reentrant=False, context_fn=partial(_contexts, block))
    return block(x)
