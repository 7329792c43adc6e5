"""The backbones on the GPU, in float32, under AMP and compiled, against what upstream's code gave in float32."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmevm.backbones import EfficientVMamba, Vim, VMamba
from mmevm.checkpoint import load_checkpoint
from mmevm.ops import backends

from ..parity import Fixture, names
from .comparison import output_gradients
from .device import DEVICE, REHEARSAL

pytestmark = pytest.mark.gpu

DTYPES = pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16], ids=str)
AMP = {
    ('evm', torch.float16): (4e-3, 4e-2),
    ('evm', torch.bfloat16): (3e-2, 1.2e-1),
    ('vmamba', torch.float16): (1.1e-2, 1.6e-2),
    ('vmamba', torch.bfloat16): (8.5e-2, 1.2e-1),
    ('vim', torch.float16): (4e-3, 7e-3),
    ('vim', torch.bfloat16): (3.5e-2, 4.5e-2),
}
"""Largest relative error of an output and of the images' gradient, in the Euclidean norm, by family and autocast dtype.

About 2.5 times what the CPU's autocast gives. EfficientVMamba's gradient has the larger one because of the ReLUs:
rounding moves some of their inputs across zero.
"""

NAMES = [*names('evm'), *names('vmamba'), *names('vim')]
SMALL = {'dims': [16, 32], 'depths': [1, 1]}
BACKBONES = {
    'evm': (EfficientVMamba, {'arch': SMALL, 'out_indices': (0, 1)}),
    'vmamba': (VMamba, {'arch': SMALL, 'out_indices': (0, 1)}),
    'vmamba v2': (VMamba, {'arch': {**SMALL, 'design': 'v2', 'ssm_ratio': 1.0}, 'out_indices': (0, 1)}),
    'vim': (Vim, {'arch': {'dims': [32], 'depths': [2]}, 'img_size': 64, 'out_type': 'featmap'}),
}


class VimClassifier(nn.Module):
    """Vim with its classification head, as the fixtures' logits and gradients have it."""

    def __init__(self, backbone: Vim, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.backbone, self.weight, self.bias = backbone, nn.Parameter(weight), nn.Parameter(bias)

    def forward(self, x: Tensor) -> tuple[Tensor]:
        """Args: x (Tensor[B, 3, H, W]). Returns: the logits, Tensor[B, 1000]."""
        return (F.linear(self.backbone(x)[0], self.weight, self.bias),)


class Case:
    """A fixture, the network that it is of, and what the network has to return."""

    def __init__(self, name: str) -> None:
        self.fixture, self.family = Fixture(name), name.partition('_')[0]
        meta = self.fixture.meta
        if self.family == 'vim':
            state = self.fixture.state(outnorm=False)
            backbone = Vim(meta['arch'], img_size=meta['input_shape'][2])
            load_checkpoint(backbone, state)
            self.model: nn.Module = VimClassifier(backbone, state['head.weight'], state['head.bias'])
            self.expected = [self.fixture.tensor('logits')]
        else:
            family = {'evm': EfficientVMamba, 'vmamba': VMamba}[self.family]
            self.model = family(meta['arch'].removeprefix('v0_'))
            load_checkpoint(self.model, self.fixture.state())
            self.expected = [self.fixture.tensor(f'stage{i}') for i in range(4)]
        self.model = self.model.eval().to(DEVICE)

    def images(self) -> Tensor:
        """The fixture's images on the device."""
        return self.fixture.images().to(DEVICE)


@pytest.fixture(scope='module', params=NAMES)
def case(request: pytest.FixtureRequest) -> Case:
    """Every fixture of every family; a module's scope keeps the tests of one together, whose weights take seconds."""
    return Case(request.param)


def distance(got: Tensor, expected: Tensor) -> float:
    """|got - expected| / |expected| in the Euclidean norm."""
    return ((got.cpu().double() - expected.double()).norm() / expected.double().norm()).item()


@pytest.fixture(autouse=True)
def scans_with(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes 'auto' take the backend under test."""
    choose = backends.choose
    monkeypatch.setattr(backends, 'choose', lambda name, *args: choose(backend if name == 'auto' else name, *args))


def test_backbone_gives_upstreams_outputs(case: Case, full_precision: None) -> None:
    with torch.no_grad():
        outputs = case.model(case.images())
    for got, expected in zip(outputs, case.expected, strict=True):
        torch.testing.assert_close(got.cpu(), expected, rtol=0, atol=2e-4)


@DTYPES
def test_backbone_gives_upstreams_outputs_under_amp(case: Case, dtype: torch.dtype) -> None:
    with torch.no_grad(), torch.autocast(DEVICE, dtype):
        outputs = case.model(case.images())
    for i, (got, expected) in enumerate(zip(outputs, case.expected, strict=True)):
        assert distance(got, expected) < AMP[case.family, dtype][0], f'output {i}'


@DTYPES
@pytest.mark.parametrize('case', [name for name in NAMES if 'input_grad' in Fixture(name)], indirect=True)
def test_backbone_gives_upstreams_gradients_under_amp(case: Case, dtype: torch.dtype) -> None:
    images = case.images().requires_grad_()
    case.model.zero_grad()
    with torch.autocast(DEVICE, dtype):
        outputs = case.model(images)
    case.fixture.loss(tuple(y.float().cpu() for y in outputs)).backward()
    assert distance(images.grad, case.fixture.tensor('input_grad')) < AMP[case.family, dtype][1]
    assert all(p.grad.isfinite().all() for p in case.model.parameters())


@pytest.mark.parametrize('family', BACKBONES)
def test_backbone_compiles_without_graph_breaks(family: str, full_precision: None) -> None:
    torch._dynamo.reset()
    make, options = BACKBONES[family]
    model = make(**options).to(DEVICE)
    # Inductor's C++ compiler is not what the rehearsal is about.
    compiled = torch.compile(model, fullgraph=True, backend='aot_eager' if REHEARSAL else 'inductor')
    images = torch.randn(2, 3, 64, 96, device=DEVICE, requires_grad=True)
    outputs, expected = compiled(images), model(images)
    seeds = output_gradients(expected)
    for got, want in zip(outputs, expected, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)
    leaves = [images, *model.parameters()]
    pairs = zip(torch.autograd.grad(outputs, leaves, seeds), torch.autograd.grad(expected, leaves, seeds), strict=True)
    for got, want in pairs:
        assert distance(got, want.cpu()) < 1e-3
