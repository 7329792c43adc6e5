"""The projection by phases against a loop over the cells."""

import pytest
import torch
from torch import Tensor
from torch._subclasses import FakeTensorMode

from mmevm.layers import ES2D, mixers
from mmevm.layers.mixers import project_phases


def _by_cells(x: Tensor, weight: Tensor, step: int) -> Tensor:
    rows = [
        torch.stack([x[:, h, w] @ weight[h % step % 2 + 2 * (w % step % 2)].mT for w in range(x.shape[2])], 1)
        for h in range(x.shape[1])
    ]
    return torch.stack(rows, 1)


@pytest.mark.parametrize('H, W, step', [(4, 6, 2), (5, 3, 2), (1, 1, 2), (1, 7, 2), (7, 5, 3), (3, 9, 4)])
def test_phase_projection_uses_the_weight_of_each_cells_phase(H: int, W: int, step: int) -> None:
    x = torch.randn(2, H, W, 4, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(4, 3, 4, dtype=torch.float64, requires_grad=True)
    got, expected = project_phases(x, weight, step), _by_cells(x, weight, step)
    torch.testing.assert_close(got, expected)
    with torch.no_grad():
        torch.testing.assert_close(project_phases(x, weight, step), expected)
    seed = torch.randn_like(got)
    for g, e in zip(*(torch.autograd.grad(y, [x, weight], seed) for y in (got, expected)), strict=True):
        torch.testing.assert_close(g, e)


@pytest.mark.parametrize('B, H, W', [(2, 4, 6), (1, 2, 2), (3, 8, 2), (0, 4, 4)])
def test_pairs_of_cells_project_as_cells_do(B: int, H: int, W: int) -> None:
    """What GPUs take where both sizes are even."""
    x = torch.randn(B, H, W, 5, dtype=torch.float64)
    weight = torch.randn(4, 3, 5, dtype=torch.float64)
    got = mixers._project_pairs(x, weight.mT)
    torch.testing.assert_close(got, mixers._project(x, weight.mT, 2))
    torch.testing.assert_close(mixers._project_pairs(got, weight), mixers._project(got, weight, 2))
    expected = mixers._weight_gradient(x, got, weight, 2)
    torch.testing.assert_close(mixers._weight_gradient_of_pairs(x, got), expected)


def test_gpus_project_pairs_with_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(2, 4, 6, 5, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(4, 3, 5, dtype=torch.float64, requires_grad=True)
    asked = []
    monkeypatch.setattr(mixers, '_in_pairs', lambda x, step: asked.append(step) or True)
    assert torch.autograd.gradcheck(lambda *tensors: project_phases(*tensors, 2), (x, weight))
    assert asked


@pytest.mark.parametrize(
    'H, W, step, expected', [(4, 6, 2, True), (5, 6, 2, False), (4, 7, 2, False), (4, 4, 4, False)]
)
def test_only_even_maps_on_gpus_are_projected_in_pairs(H: int, W: int, step: int, expected: bool) -> None:
    with FakeTensorMode():
        assert mixers._in_pairs(torch.empty(2, H, W, 5, device='cuda'), step) == expected
        channels_first = torch.empty(2, 5, H, W, device='cuda').permute(0, 2, 3, 1)
        assert not mixers._in_pairs(channels_first, step)
        assert not mixers._in_pairs(torch.empty(2, H, W, 5), step)


def test_phase_projection_keeps_nothing_but_its_inputs() -> None:
    x = torch.randn(2, 6, 6, 8, requires_grad=True)
    weight = torch.randn(4, 3, 8, requires_grad=True)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.data_ptr()) or t, lambda t: t):
        project_phases(x, weight, 2)
    assert sorted(kept) == sorted([x.data_ptr(), weight.data_ptr()])


def test_es2d_projects_in_the_data_type_of_the_map_under_autocast() -> None:
    layer = ES2D(16)
    x = torch.randn(1, 6, 6, 32, dtype=torch.bfloat16, requires_grad=True)
    with torch.autocast('cpu', torch.bfloat16):
        x_dbl = layer.project(x)
    assert x_dbl.dtype == torch.bfloat16
    x_dbl.float().square().sum().backward()
    expected = ES2D(16)
    expected.load_state_dict(layer.state_dict())
    exact = x.detach().float().requires_grad_()
    expected.project(exact).square().sum().backward()
    weights = layer.x_proj_weight.grad, expected.x_proj_weight.grad
    for got, e in (weights, (x.grad.float(), exact.grad)):
        assert (got - e).abs().max() < 3e-2 * e.abs().max()


def test_es2d_projection_compiles_without_a_break() -> None:
    layer, x = ES2D(16), torch.randn(1, 5, 6, 32)
    expected = layer.project(x)
    compiled = torch.compile(layer.project, fullgraph=True, backend='aot_eager')
    torch.testing.assert_close(compiled(x), expected)
    compiled(x).sum().backward()
    gradient = layer.x_proj_weight.grad.clone()
    layer.x_proj_weight.grad = None
    layer.project(x).sum().backward()
    torch.testing.assert_close(gradient, layer.x_proj_weight.grad)
