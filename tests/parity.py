"""Upstream's outputs for weights and inputs that are made, not stored; see tests/data/parity/weights.py."""

import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .data.parity import weights

FOLDER = Path(__file__).parent / 'data' / 'parity'


def names(model: str) -> list[str]:
    """The fixtures of a model: 'evm', 'vmamba' or 'vim'."""
    return sorted(path.stem for path in FOLDER.glob(f'{model}_*.npz'))


NAMES = names('evm')


@functools.lru_cache(maxsize=4)  # drawing them takes longer than what most tests do with them
def _arrays(name: str, outnorm: bool) -> dict[str, np.ndarray]:
    meta = Fixture(name).meta
    return weights.make_state(meta['manifest'] | (meta['outnorm'] if outnorm else {}), meta['weight_seed'])


class Fixture:
    """One fixture: what upstream's code gave, and how to make what it was given."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.arrays = np.load(FOLDER / f'{name}.npz')
        self.meta: dict[str, Any] = json.loads(str(self.arrays['meta']))

    def __contains__(self, name: str) -> bool:
        return name in self.arrays.files

    def tensor(self, name: str) -> Tensor:
        return torch.from_numpy(self.arrays[name])

    def state(self, outnorm: bool = True) -> dict[str, Tensor]:
        """The upstream checkpoint, in upstream's spelling, with the output norms of a dense task or without."""
        return {name: torch.from_numpy(array.copy()) for name, array in _arrays(self.name, outnorm).items()}

    def images(self) -> Tensor:
        return torch.from_numpy(weights.make_input(self.meta['input_shape'], self.meta['input_seed']))

    def loss(self, maps: tuple[Tensor, ...]) -> Tensor:
        """The loss that the stored gradients belong to."""
        factors = [torch.from_numpy(weights.make_input(tuple(m.shape), 100 + i)) for i, m in enumerate(maps)]
        return sum((m * f).mean() for m, f in zip(maps, factors, strict=True))
