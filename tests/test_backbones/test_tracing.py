"""What tracers see of the backbones: TorchScript, and the FLOPs counters of MMEngine and PyTorch."""

import io
import warnings

import pytest
import torch
from mmengine.analysis import ActivationAnalyzer, FlopAnalyzer
from torch import nn
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from mmevm.backbones import EfficientVMamba, Vim, VMamba
from tools.analysis.complexity import count

pytestmark = pytest.mark.usefixtures('extension')

TWO = {'dims': [16, 32], 'depths': [1, 1]}
BOTH_BLOCKS = {'dims': [16, 32, 64], 'depths': [1, 1, 1], 'blocks': ['evss', 'evss', 'inres']}
MODELS = {
    'EfficientVMamba': lambda: EfficientVMamba(BOTH_BLOCKS, out_indices=(0, 1, 2)),
    'EfficientVMamba without fusion': lambda: EfficientVMamba(TWO, out_indices=(0, 1), fusion=False),
    'VMamba': lambda: VMamba(TWO, out_indices=(0, 1)),
    'VMamba v2': lambda: VMamba({**TWO, 'design': 'v2'}, out_indices=(0, 1)),
    'Vim': lambda: Vim(dict(dims=[32], depths=[2]), img_size=64),
}
every_model = pytest.mark.parametrize('name', MODELS)


@every_model
@pytest.mark.parametrize('grad', [True, False], ids=['grad', 'no_grad'])
def test_traced_models_are_saved_and_serve_other_sizes(name: str, grad: bool) -> None:
    model = MODELS[name]().eval()
    with torch.set_grad_enabled(grad), warnings.catch_warnings():
        warnings.simplefilter('error', torch.jit.TracerWarning)
        if name == 'Vim':  # its positions are traced for one size, or for being interpolated
            warnings.filterwarnings('ignore', category=torch.jit.TracerWarning, module='mmevm.layers.vim')
        traced = torch.jit.trace(model, torch.randn(1, 3, 64, 64))
    file = io.BytesIO()
    torch.jit.save(traced, file)
    file.seek(0)
    loaded = torch.jit.load(file)
    # The second and third calls run what TorchScript has optimised.
    for size in ((64, 64),) * 3 if name == 'Vim' else ((64, 64), (65, 47), (96, 33)):
        x = torch.randn(2, 3, *size)
        for got, expected in zip(loaded(x), model(x), strict=True):
            torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-4)


def test_a_traced_model_can_be_trained() -> None:
    model = EfficientVMamba(TWO, out_indices=(0, 1)).eval()
    x = torch.randn(1, 3, 32, 32)
    traced = torch.jit.trace(model, x)
    for _ in range(3):
        got, expected = (
            torch.autograd.grad(sum(m.square().sum() for m in net(x)), list(model.parameters()), allow_unused=True)
            for net in (traced, model)
        )
    for g, e in zip(got, expected, strict=True):
        torch.testing.assert_close(g, e, rtol=1e-3, atol=1e-4)


def _macs(model: nn.Module, x: torch.Tensor) -> float:
    return FlopAnalyzer(model, x).unsupported_ops_warnings(False).uncalled_modules_warnings(False).total()


@every_model
def test_mmengine_counts_what_our_tool_counts(name: str) -> None:
    model, x = MODELS[name]().eval(), torch.randn(1, 3, 64, 64)
    expected = count(model, tuple(x.shape))
    # Watched, Vim's convolutions do without the padding at both ends.
    assert _macs(model, x) == (pytest.approx(expected.flops, rel=0.01) if name == 'Vim' else expected.flops)
    if name != 'Vim':  # its time steps are then a linear layer's output
        activations = ActivationAnalyzer(model, x).unsupported_ops_warnings(False).uncalled_modules_warnings(False)
        assert activations.total() == expected.activations


@every_model
def test_pytorchs_counter_sees_scans_and_their_gradients(name: str) -> None:
    model, x = MODELS[name]().eval(), torch.randn(1, 3, 64, 64)
    with FlopCounterMode(display=False) as counter:
        sum(m.sum() for m in model(x)).backward()
    counts = {str(op): flops for op, flops in counter.get_flop_counts()['Global'].items()}
    # It watches the layers, which makes Vim call the projection of its time steps.
    scan = 'selective_scan' if name == 'Vim' else 'visual_scan'
    assert counts[f'mmevm.{scan}'] > 0
    assert counts[f'mmevm._{scan}_backward'] == 2 * counts[f'mmevm.{scan}']
    # Norms are all that it leaves out.
    with FlopCounterMode(display=False) as forward, torch.no_grad():
        model(x)
    assert 0.9 < forward.get_total_flops() / 2 / count(model, tuple(x.shape)).flops <= 1.001


def test_every_counter_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    for operator in [operator for operator in flop_registry if str(operator).startswith('mmevm')]:
        monkeypatch.delitem(flop_registry, operator)
    model, x = EfficientVMamba(TWO, out_indices=(0, 1)).eval(), torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        traced = torch.jit.trace(model, x)  # calls the operators without asking for their formulas
        model(x)
        counters = [FlopCounterMode(display=False) for _ in range(2)]
        totals = []
        for counter in counters:
            with counter:
                model(x)
            totals.append(counter.get_total_flops())
        with FlopCounterMode(display=False) as of_traced:
            traced(x)
    assert totals[0] == totals[1] > 0
    assert 'mmevm.visual_scan' in map(str, of_traced.get_flop_counts()['Global'])
