"""What the tests of checkpoints share."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mmevm.checkpoint import formats

from ..parity import Fixture

State = dict[str, Tensor]


@pytest.fixture(scope='session')
def state() -> State:
    """A classification checkpoint of the tiny variant, in upstream's spelling."""
    return Fixture('evm_tiny_64x64').state(outnorm=False)


class Reduced:
    """Pickles as a call of ``function`` with ``args``."""

    def __init__(self, function: Any, *args: Any) -> None:
        self.call = function, args

    def __reduce__(self) -> tuple:
        return self.call


@pytest.fixture(params=[True, False], ids=['zip', 'legacy'])
def save(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    def write(content: Any) -> str:
        path = tmp_path / 'checkpoint.pth'
        torch.save(content, path, _use_new_zipfile_serialization=request.param)
        return str(path)

    return write


def assert_loaded(model: nn.Module, state: State) -> None:
    """The model has the checkpoint's values, the classifier's in the last output norm, and fresh other norms."""
    expected = formats.convert(state)
    expected |= {f'outnorm3.{leaf}': expected[f'classifier.norm.{leaf}'] for leaf in ('weight', 'bias')}
    for name, value in model.state_dict().items():
        if name.startswith('outnorm') and name not in expected:
            assert value.eq(1 if name.endswith('weight') else 0).all(), name
        else:
            assert torch.equal(value, expected[name]), name
