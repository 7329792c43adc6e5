"""The backbone on the GPU, in float32 and under AMP, against what upstream's code gave in float32."""

import pytest
import torch
from torch import Tensor, nn

from mmevm.backbones import EfficientVMamba
from mmevm.checkpoint import load_checkpoint
from mmevm.ops import backends

from ..parity import NAMES, Fixture
from .device import DEVICE

pytestmark = pytest.mark.gpu

AMP = {torch.float16: (4e-3, 4e-2), torch.bfloat16: (3e-2, 1.2e-1)}
"""Largest relative error of a map and of the images' gradient, in the Euclidean norm, by autocast's dtype.

About 2.5 times what the CPU's autocast gives. The gradient's is the larger one because of the ReLUs: rounding moves
some of their inputs across zero.
"""


def place(fixture: Fixture) -> nn.Module:
    """The fixture's network on the device, with its weights, in evaluation mode."""
    model = EfficientVMamba(fixture.meta['arch']).eval()
    load_checkpoint(model, fixture.state())
    return model.to(DEVICE)


def distance(got: Tensor, expected: Tensor) -> float:
    """|got - expected| / |expected| in the Euclidean norm."""
    return ((got.cpu().double() - expected.double()).norm() / expected.double().norm()).item()


@pytest.fixture(autouse=True)
def scans_with(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes 'auto' take the backend under test."""
    choose = backends.choose
    monkeypatch.setattr(backends, 'choose', lambda name, *args: choose(backend if name == 'auto' else name, *args))


@pytest.mark.parametrize('name', NAMES)
def test_backbone_gives_upstreams_maps(name: str, full_precision: None) -> None:
    fixture = Fixture(name)
    with torch.no_grad():
        maps = place(fixture)(fixture.images().to(DEVICE))
    for i, got in enumerate(maps):
        torch.testing.assert_close(got.cpu(), fixture.tensor(f'stage{i}'), rtol=0, atol=2e-4)


@pytest.mark.parametrize('dtype', AMP, ids=str)
@pytest.mark.parametrize('name', NAMES)
def test_backbone_gives_upstreams_maps_under_amp(name: str, dtype: torch.dtype) -> None:
    fixture = Fixture(name)
    with torch.no_grad(), torch.autocast(DEVICE, dtype):
        maps = place(fixture)(fixture.images().to(DEVICE))
    for i, got in enumerate(maps):
        assert distance(got, fixture.tensor(f'stage{i}')) < AMP[dtype][0], f'stage{i}'


@pytest.mark.parametrize('dtype', AMP, ids=str)
@pytest.mark.parametrize('name', [name for name in NAMES if 'input_grad' in Fixture(name)])
def test_backbone_gives_upstreams_gradients_under_amp(name: str, dtype: torch.dtype) -> None:
    fixture = Fixture(name)
    model, images = place(fixture), fixture.images().to(DEVICE).requires_grad_()
    with torch.autocast(DEVICE, dtype):
        maps = model(images)
    fixture.loss(tuple(m.float().cpu() for m in maps)).backward()
    assert distance(images.grad, fixture.tensor('input_grad')) < AMP[dtype][1]
    assert all(p.grad.isfinite().all() for p in model.parameters())
