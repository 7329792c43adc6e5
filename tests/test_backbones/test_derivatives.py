"""Derivatives of whole backbones beyond a plain backward pass."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.func import functional_call

from mmevm.backbones import EfficientVMamba, Vim, VMamba

pytestmark = pytest.mark.usefixtures('extension')

TWO = {'dims': [16, 32], 'depths': [1, 1]}
MODELS = {
    'EfficientVMamba': lambda: EfficientVMamba({**TWO, 'blocks': ['evss', 'inres']}, out_indices=(1,)),
    'VMamba': lambda: VMamba(TWO, out_indices=(1,)),
    'VMamba v2': lambda: VMamba({**TWO, 'design': 'v2'}, out_indices=(1,)),
    'Vim': lambda: Vim({'dims': [32], 'depths': [2]}, img_size=32),
}
every_model = pytest.mark.parametrize('make', MODELS.values(), ids=MODELS.keys())

Make = Callable[[], nn.Module]


def _images(batch: int = 1) -> Tensor:
    return torch.randn(batch, 3, 32, 32, dtype=torch.float64)


@every_model
@pytest.mark.parametrize('trained', [True, False], ids=['trained', 'frozen'])
def test_forward_mode_agrees_with_differences(make: Make, trained: bool) -> None:
    model, x = make().double().eval().requires_grad_(trained), _images()
    tangent, step = torch.randn_like(x), 1e-5
    with torch.no_grad():
        expected = (model(x + step * tangent)[0] - model(x - step * tangent)[0]) / (2 * step)
        _, silent = torch.func.jvp(lambda x: model(x)[0], (x,), (tangent,))
    _, loud = torch.func.jvp(lambda x: model(x)[0], (x,), (tangent,))
    with forward_ad.dual_level():
        dual = forward_ad.unpack_dual(model(forward_ad.make_dual(x, tangent))[0]).tangent
    for got in (silent, loud, dual):
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)


@every_model
def test_gradients_of_each_sample_are_those_of_a_batch_of_one(make: Make) -> None:
    model, x = make().double().eval(), _images(3)
    parameters = dict(model.named_parameters())

    def loss(parameters: dict[str, Tensor], image: Tensor) -> Tensor:
        return functional_call(model, parameters, (image.unsqueeze(0),))[0].square().sum()

    got = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(parameters, x)
    for i, image in enumerate(x):
        wanted = torch.autograd.grad(loss(parameters, image), list(parameters.values()), allow_unused=True)
        for name, expected in zip(parameters, wanted, strict=True):
            torch.testing.assert_close(got[name][i], torch.zeros_like(got[name][i]) if expected is None else expected)


@every_model
def test_a_gradient_penalty_trains_all_that_a_loss_trains(make: Make) -> None:
    model, x = make().double().eval(), _images().requires_grad_()
    parameters = dict(model.named_parameters())

    def penalty() -> Tensor:
        return torch.autograd.grad(model(x)[0].square().sum(), x, create_graph=True)[0].square().sum()

    names = [name for name in parameters if name.endswith(('A_logs', 'A_log', 'x_proj_weight', 'x_proj.weight'))]
    grads = torch.autograd.grad(penalty(), [parameters[name] for name in names])
    for name, grad in zip(names, grads, strict=True):
        direction, step = torch.randn_like(grad), 1e-6
        values = []
        for sign in (1, -1):
            parameters[name].data.add_(sign * step * direction)
            values.append(penalty().item())
            parameters[name].data.add_(-sign * step * direction)
        expected = (values[0] - values[1]) / (2 * step)
        assert (grad * direction).sum().item() == pytest.approx(expected, rel=1e-4, abs=1e-6), name
