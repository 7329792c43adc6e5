"""The fused passes with gradients: every operator against its formula, and where they serve."""

import copy
from collections.abc import Callable, Iterator
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from mmevm.layers import ES2D, EVSSBlock, InvertedResidual
from mmevm.ops import training
from mmevm.ops.training import ACTIVATION_INDEX, FORMULAS

from .samples import relative_error
from .test_passes import SHAPES

pytestmark = pytest.mark.usefixtures('extension')

OPERATORS = torch.ops.mmevm


@pytest.fixture(autouse=True, params=[1, 3])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    torch.manual_seed(0)
    yield request.param
    torch.set_num_threads(before)


def inputs(name: str, shape: tuple[int, ...]) -> list[tuple]:
    """Arguments for an operator, in each of its kinds."""
    B, _, _, C = shape
    x, y, z = (torch.randn(shape) for _ in range(3))
    weight, bias = torch.randn(C), torch.randn(C)
    scales = torch.rand(2, B, 1, 1, C)
    kernel, sets = torch.randn(C, 1, 3, 3), torch.randn(4, 13, C)
    kinds = {
        'depthwise_activation': [(x, kernel, b, i) for b in (bias, None) for i in ACTIVATION_INDEX.values()],
        'batch_norm_activation': [(3 + x, weight, bias, 1e-3, i) for i in ACTIVATION_INDEX.values()],
        'norm_gate': [(5 + x, y, weight, bias, 1e-5)],
        'norm_average': [(5 + x, weight, bias, 1e-5)],
        'blend': [(z, x, scales[0], y, scales[1]), (None, x, scales[0], None, None), (z, x, scales[0], None, None)],
        'phase_projection': [(x, sets, 2, [0, 2, 1, 3]), (x, sets, 3, [0, 2, 0, 1, 3, 1, 0, 2, 0])],
    }
    return kinds[name]


def leaves(arguments: tuple, dtype: torch.dtype = torch.float32) -> list:
    """Copies of the arguments, of which tensors are leaves that require gradients."""
    return [a.detach().to(dtype).requires_grad_() if isinstance(a, Tensor) else a for a in arguments]


def gradients(function: Callable[..., Tensor], arguments: list) -> tuple[Tensor, ...]:
    """The result, and the gradients of all tensors for a loss that is not symmetric."""
    y = function(*arguments)
    dy = torch.cos(torch.arange(y.numel(), dtype=y.dtype)).view_as(y)
    return (y.detach(), *torch.autograd.grad(y, [a for a in arguments if isinstance(a, Tensor)], dy))


def first(function: Callable[..., object]) -> Callable[..., Tensor]:
    """The first result of a function that may have several."""

    def run(*arguments: object) -> Tensor:
        result = function(*arguments)
        return result[0] if isinstance(result, tuple) else result

    return run


@pytest.mark.parametrize('shape', SHAPES)
@pytest.mark.parametrize('name', FORMULAS)
def test_operators_agree_with_their_formulas(name: str, shape: tuple[int, ...]) -> None:
    operator, formula = first(getattr(OPERATORS, name)), first(FORMULAS[name][0])
    for arguments in inputs(name, shape):
        if name == 'batch_norm_activation' and arguments[0].numel() == shape[3]:
            continue
        got = gradients(operator, leaves(arguments))
        expected = gradients(formula, leaves(arguments, torch.float64))
        for a, b in zip(got, expected, strict=True):
            assert a.shape == b.shape and relative_error(a, b) < 2e-5


@pytest.mark.parametrize('name', FORMULAS)
@pytest.mark.parametrize('threads', [1], indirect=True)
def test_formulas_pass_gradcheck(name: str) -> None:
    for arguments in inputs(name, (2, 3, 4, 3)):
        assert torch.autograd.gradcheck(first(FORMULAS[name][0]), leaves(arguments, torch.float64))


@pytest.mark.parametrize('name', FORMULAS)
@pytest.mark.parametrize('threads', [1], indirect=True)
def test_operators_pass_opcheck(name: str) -> None:
    for arguments in inputs(name, (2, 3, 4, 5)):
        torch.library.opcheck(getattr(OPERATORS, name).default, tuple(leaves(arguments)))


@pytest.mark.parametrize('name', FORMULAS)
def test_gradients_can_be_differentiated_again(name: str) -> None:
    for arguments in inputs(name, (1, 4, 3, 6)):
        second = []
        for function, dtype in ((getattr(OPERATORS, name), torch.float32), (FORMULAS[name][0], torch.float64)):
            given = leaves(arguments, dtype)
            tensors = [a for a in given if isinstance(a, Tensor)]
            y = first(function)(*given)
            y = (y.square() * torch.cos(torch.arange(y.numel(), dtype=y.dtype)).view_as(y)).sum()
            once = torch.autograd.grad(y, tensors, create_graph=True)
            second.append(torch.autograd.grad(sum(g.square().sum() for g in once), tensors))
        assert all(relative_error(a, b) < 1e-4 for a, b in zip(*second, strict=True))


def test_results_do_not_depend_on_the_threads() -> None:
    for name in FORMULAS:
        arguments = inputs(name, (2, 40, 41, 96))[0]
        results = []
        for count in (1, 2, 5):
            torch.set_num_threads(count)
            results.append(gradients(first(getattr(OPERATORS, name)), leaves(arguments)))
        first_one = int(name == 'norm_average')  # whose forward pass is that of inference
        for other in results[1:]:
            assert all(map(torch.equal, results[0][first_one:], other[first_one:]))


def step(module: nn.Module, x: Tensor, run: Callable[[nn.Module, Tensor], Tensor] | None = None) -> list[Tensor]:
    """Result and gradients of a training step of a copy of a module, and its buffers afterwards."""
    module, x = copy.deepcopy(module).train(), x.detach().requires_grad_()
    y = run(module, x) if run else module(x)
    (y * torch.cos(torch.arange(y.numel(), dtype=y.dtype)).view_as(y)).sum().backward()
    return [y.detach(), x.grad, *(p.grad for p in module.parameters()), *module.buffers()]


def plain(monkeypatch: pytest.MonkeyPatch, module: nn.Module, x: Tensor) -> list[Tensor]:
    """The same without the operators, in float64."""
    with monkeypatch.context() as patch:
        patch.setattr(training, 'available', lambda *tensors: False)
        return step(copy.deepcopy(module).double(), x.double())


def assert_same_step(got: list[Tensor], expected: list[Tensor]) -> None:
    largest = max(t.abs().max() for t in expected[1:] if t.is_floating_point())
    for a, b in zip(got, expected, strict=True):
        # The bias before a batch norm has no gradient but rounding errors.
        assert (a.double() - b).abs().max() <= 3e-5 * max(b.abs().max(), 1e-2 * largest)


MODULES = {'ES2D': partial(ES2D, 24), 'EVSS': partial(EVSSBlock, 24), 'InRes': partial(InvertedResidual, 12)}


@pytest.mark.parametrize('name', MODULES)
@pytest.mark.parametrize('H, W', [(8, 8), (7, 10)])
def test_blocks_train_as_without_the_operators(name: str, H: int, W: int, monkeypatch: pytest.MonkeyPatch) -> None:
    module = MODULES[name]()
    x = torch.randn(2, H, W, 12 if name == 'InRes' else 24)
    with torch.profiler.profile() as profile:
        got = step(module, x)
    assert {'EVSS': 'norm_average', 'ES2D': 'norm_gate', 'InRes': 'batch_norm_activation'}[name] in str(
        {event.key for event in profile.key_averages()}
    )
    expected = plain(monkeypatch, module, x)
    assert_same_step(got, expected)
    recomputed = step(module, x, lambda m, x: checkpoint(m, x, use_reentrant=False))
    assert all(map(torch.equal, got[: len(got) - len(list(module.buffers()))], recomputed))


@pytest.mark.parametrize('threads', [1], indirect=True)
def test_compiled_blocks_train_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in MODULES:
        module, x = MODULES[name](), torch.randn(2, 6, 6, 12 if name == 'InRes' else 24)
        got = step(module, x, lambda m, x: torch.compile(m, backend='aot_eager', fullgraph=True)(x))
        assert_same_step(got, plain(monkeypatch, module, x))


def test_flops_are_those_without_the_operators(monkeypatch: pytest.MonkeyPatch) -> None:
    module, x = EVSSBlock(24).train(), torch.randn(2, 6, 8, 24)
    counts = []
    for patched in (False, True):
        with monkeypatch.context() as patch, FlopCounterMode(display=False) as counter:
            if patched:
                patch.setattr(training, 'available', lambda *tensors: False)
            y = module(x)
        counts.append(counter.get_total_flops())
    assert counts[0] == counts[1] > 0 and y.requires_grad


def test_second_derivatives_of_the_convolved_scan() -> None:
    module, x = ES2D(4, d_state=2), torch.randn(1, 4, 5, 8)
    second = []
    for dtype in (torch.float32, torch.float64):
        mixer, given = copy.deepcopy(module).to(dtype), x.to(dtype).requires_grad_()
        (once,) = torch.autograd.grad(mixer.convolve_and_scan(given).square().sum(), given, create_graph=True)
        second.append(torch.autograd.grad(once.square().sum(), given)[0])
    assert relative_error(*second) < 1e-4


def test_where_they_serve() -> None:
    x = torch.randn(1, 4, 4, 8)
    assert training.available(x, None, nn.Parameter(torch.ones(3)))
    assert not training.available(x.double()) and not training.available(x.bfloat16())
    assert not training.available(x.mT) and not training.available(x[:0])
    with torch.no_grad():
        assert not training.available(x)
    with torch.autocast('cpu', torch.bfloat16):
        assert not training.available(x)
    assert not torch.func.vmap(lambda t: torch.tensor(training.available(t)))(x).any()


@pytest.mark.parametrize(
    'norm',
    [nn.SyncBatchNorm(8), nn.BatchNorm2d(8, momentum=None), nn.BatchNorm2d(8, affine=False), nn.BatchNorm2d(8).eval()],
)
def test_other_norms_are_left_to_pytorch(norm: nn.Module) -> None:
    assert not training.norm_serves(norm, torch.randn(1, 4, 4, 8))
    assert training.norm_serves(nn.BatchNorm2d(8, track_running_stats=False), torch.randn(1, 4, 4, 8))


@pytest.mark.parametrize(
    'call, message',
    [
        (lambda x, n: OPERATORS.depthwise_activation(x, torch.ones(8, 1, 1, 4), None, 0), r'\[C, 1, 3, 3\]'),
        (lambda x, n: OPERATORS.depthwise_activation(x, torch.ones(8, 1, 3, 3), None, 9), '`activation`'),
        (lambda x, n: OPERATORS.depthwise_activation(x.double(), torch.ones(8, 1, 3, 3), None, 0), 'float32'),
        (lambda x, n: OPERATORS._depthwise_activation_backward(x, x[:, 1:].clone(), n, None, 0), '`x`'),
        (lambda x, n: OPERATORS.batch_norm_activation(x, n, n[1:], 0.0, 0), '`bias`'),
        (lambda x, n: OPERATORS._batch_norm_activation_backward(x, x, n, n, n[1:], n, 0.0, 0), '`mean`'),
        (lambda x, n: OPERATORS.norm_gate(x, x[:, 1:].clone(), n, n, 0.0), '`gate`'),
        (lambda x, n: OPERATORS._norm_gate_backward(x, x, x.bfloat16(), n, n, 0.0), '`gate`'),
        (lambda x, n: OPERATORS.norm_average(x, n[1:], n, 0.0), '`weight`'),
        (lambda x, n: OPERATORS._norm_average_backward(n, x, n, n, 0.0), '`dmean`'),
        (lambda x, n: OPERATORS.blend(x, x, n, None, None), '`scale_a`'),
        (lambda x, n: OPERATORS.blend(x, x, n.view(1, 1, 1, 8), x, None), 'together'),
        (lambda x, n: OPERATORS._blend_backward(x[:, 1:], x, n.view(1, 1, 1, 8), None, None), '`dy`'),
        (lambda x, n: OPERATORS.phase_projection(x, torch.ones(2, 3, 7), 1, [0]), '`weight`'),
        (lambda x, n: OPERATORS.phase_projection(x, torch.ones(2, 3, 8), 2, [0, 1]), '`sets`'),
        (lambda x, n: OPERATORS.phase_projection(x, torch.ones(2, 3, 8), 1, [2]), '`sets`'),
        (lambda x, n: OPERATORS._phase_projection_backward(x, x, torch.ones(2, 3, 8), 1, [0]), '`dy`'),
    ],
)
@pytest.mark.parametrize('threads', [1], indirect=True)
def test_operators_stay_within_their_memory(call: Callable[..., object], message: str) -> None:
    with pytest.raises((ValueError, RuntimeError), match=message):
        call(torch.randn(1, 4, 6, 8), torch.ones(8))
