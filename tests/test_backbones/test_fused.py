"""The shorter way of inference on a CPU against the plain layers, which models take while gradients are enabled."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from mmevm.backbones import EfficientVMamba, Vim, VMamba
from mmevm.ops import passes

pytestmark = pytest.mark.usefixtures('extension')

STAGES = {'dims': [16, 32, 64, 128], 'depths': [1, 1, 1, 1]}
MODELS: dict[str, Callable[[], nn.Module]] = {
    'evm': lambda: EfficientVMamba(STAGES, out_indices=(0, 3)),
    'evm, step 3': lambda: EfficientVMamba(STAGES, step_size=3, out_indices=(0, 3)),
    'vmamba, first design': lambda: VMamba({**STAGES, 'design': 'v0', 'ssm_ratio': 2.0}, out_indices=(0, 3)),
    'vmamba, second design': lambda: VMamba({**STAGES, 'design': 'v2', 'ssm_ratio': 1.0}, out_indices=(0, 3)),
    'vim': lambda: Vim({'dims': [32], 'depths': [2]}, img_size=64),
}


def run(model: nn.Module, images: Tensor, gradients: bool) -> tuple[list[Tensor], int]:
    """The outputs, and the FLOPs that PyTorch counts."""
    with torch.set_grad_enabled(gradients), FlopCounterMode(display=False) as counter:
        outputs = [y.detach() for y in model(images)]
    return outputs, counter.get_total_flops()


@pytest.fixture(params=MODELS)
def model(request: pytest.FixtureRequest) -> nn.Module:
    torch.manual_seed(0)
    model = MODELS[request.param]().eval()
    for name, value in [*model.named_parameters(), *model.named_buffers()]:
        if value.dim() == 1 and value.is_floating_point():  # norms that do nothing would hide mistakes
            nn.init.uniform_(value, 0.5, 1.5) if 'var' in name else nn.init.normal_(value, 1, 0.2)
    return model


@pytest.mark.parametrize('dtype, tolerance', [(torch.float32, 2e-5), (torch.bfloat16, 3e-2)])
def test_outputs_and_flops_are_those_of_the_plain_layers(
    model: nn.Module, dtype: torch.dtype, tolerance: float
) -> None:
    model, images = model.to(dtype), torch.randn(2, 3, 64, 64, dtype=dtype)
    fused, flops = run(model, images, gradients=False)
    plain, expected = run(model, images, gradients=True)
    assert flops == expected
    for got, want in zip(fused, plain, strict=True):
        assert got.dtype == dtype
        assert (got - want).float().abs().max() < tolerance * want.float().abs().max()


def test_what_replaces_a_mixer_keeps_its_output(monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[Tensor] = []

    class Keeps(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            kept.append(x)
            return x

    model = MODELS['evm']().eval()
    model.layers[0].blocks[0].op = Keeps()
    with torch.no_grad():
        model(torch.ones(1, 3, 64, 64))
    before = kept[0].clone()
    monkeypatch.setattr(passes, 'available', lambda *_: False)
    with torch.no_grad():
        model(torch.ones(1, 3, 64, 64))
    assert torch.allclose(before, kept[1], atol=1e-5)
