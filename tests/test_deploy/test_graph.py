"""Exported backbones: one graph for all sizes and numbers of images, with the scan as a node."""

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnx.inliner
import onnx_ir
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from mmevm.backbones import EfficientVMamba, Vim, VMamba
from mmevm.deploy.graph import fixed_axes, to_onnx
from mmevm.errors import UsageError
from mmevm.ops import Route, es2d_scan, selective_scan, visual_scan

try:
    import openvino
except ModuleNotFoundError:
    openvino = None
SMALL = {'dims': [8, 16, 32, 64], 'depths': [1, 1, 1, 1]}
BACKBONES = {
    'EfficientVMamba': lambda: EfficientVMamba(SMALL, out_indices=(1, 2)),
    'without fusion': lambda: EfficientVMamba(
        dict(dims=[8, 16], depths=[1, 1], blocks=['inres', 'evss']), fusion=False, step_size=3, out_indices=(0, 1)
    ),
    'VMamba': lambda: VMamba({'dims': [8, 16], 'depths': [1, 1]}, out_indices=(0, 1)),
    'VMamba, second design': lambda: VMamba(dict(SMALL, design='v2', ssm_ratio=1.0), out_indices=(1,)),
    'Vim': lambda: Vim({'dims': [16], 'depths': [1]}, img_size=64, out_type='featmap'),
}
PASSES = {
    'EfficientVMamba': {'GatedNorm', 'DepthwiseGelu', 'NormMean', 'ScaledSum'},
    'without fusion': {'GatedNorm'},
    'VMamba': {'GatedNorm'},
    'VMamba, second design': {},
    'Vim': {'RmsNorm', 'GatedMean'},
}
"""Nodes of each besides the scan and the convolution before it."""


@pytest.mark.parametrize('name', BACKBONES)
def test_maps_of_any_size(name: str, tmp_path: Path) -> None:
    backbone = BACKBONES[name]().eval()
    with torch.no_grad():
        for parameter in backbone.parameters():  # position embeddings and biases that matter
            parameter += torch.randn_like(parameter) * 0.1
    outputs = [f'map{i}' for i in backbone.out_indices]
    model = to_onnx(backbone, outputs)
    assert fixed_axes(model) == {}
    nodes = Counter(node.op_type for node in model.graph if node.domain == 'mmevm')
    assert set(nodes) == {'VisualScan', 'DepthwiseSilu', *PASSES[name]} and nodes['VisualScan'] <= 2

    path = tmp_path / 'backbone.onnx'
    onnx_ir.save(model, path)
    onnx.checker.check_model(path)
    assert str(Path(__file__).parents[2]).encode() not in path.read_bytes()
    session = onnxruntime.InferenceSession(path)
    assert [output.name for output in session.get_outputs()] == outputs
    assert session.get_inputs()[0].shape == ['batch', 3, 'height', 'width']
    runs = [lambda images: session.run(None, {'images': images})]
    if openvino is not None:  # which knows no functions
        standard = onnx.inliner.inline_local_functions(onnx.load(path))
        exact = {'INFERENCE_PRECISION_HINT': 'f32', 'INFERENCE_NUM_THREADS': 1}
        compiled = openvino.compile_model(openvino.Core().read_model(standard.SerializeToString()), 'CPU', exact)
        runs.append(lambda images: list(compiled(images).values()))
    for size in ((1, 64, 64), (3, 47, 81)):  # that of Vim's embedding, and another
        images = torch.randn(size[0], 3, *size[1:])
        with torch.no_grad():
            expected = backbone(images)
        for run in runs:
            for got, want in zip(run(images.numpy()), expected, strict=True):
                np.testing.assert_allclose(got, want, atol=1e-5 * want.abs().mean().item(), rtol=1e-4)


class Scans(nn.Module):
    """A module that calls the operators itself; a parameter has the name of an output."""

    def __init__(self, routes: list[Route] | None = None) -> None:
        super().__init__()
        self.step = 2 if routes else 1
        self.routes = routes or [Route(0, 0, k % 2 == 1, k >= 2, k, k) for k in range(4)]
        self.stem = nn.Conv2d(3, 8, 4, stride=4)
        self.project, self.delta, self.matrices = nn.Linear(8, 4 * 8), nn.Linear(8, 8), nn.Linear(8, 20)
        self.dt_weight, self.A = nn.Parameter(torch.randn(4, 8, 2)), nn.Parameter(-torch.rand(4, 8, 3))
        self.bias, self.scanned = nn.Parameter(torch.randn(8)), nn.Parameter(-torch.rand(8, 5))

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        x = self.stem(images).permute(0, 2, 3, 1)
        x_dbl = self.project(x).unflatten(-1, (4, 8))
        map0 = visual_scan(x, x_dbl, self.dt_weight, self.A, routes=self.routes, step=self.step)
        map1 = es2d_scan(x, x_dbl[..., 0, :], self.dt_weight, self.A, torch.ones(4, 8))
        tokens = x.flatten(1, 2)
        u, delta = tokens.mT, self.delta(tokens).mT
        B, C = self.matrices(tokens).mT.unflatten(1, (2, 2, 5)).unbind(1)
        scanned = selective_scan(u, delta, self.scanned, B, C, delta_bias=self.bias, delta_softplus=True)
        state = selective_scan(u, delta.abs(), self.scanned, B[:, 0], C[:, 1], z=u, return_last_state=True)
        return map0, map1, scanned, *state


def test_scans_that_a_module_calls_itself(tmp_path: Path) -> None:
    module = Scans().eval()
    onnx_ir.save(to_onnx(module, ['map0', 'map1', 'scanned', 'gated', 'state']), tmp_path / 'scans.onnx')
    session = onnxruntime.InferenceSession(tmp_path / 'scans.onnx')
    for shape in ((1, 3, 32, 48), (3, 3, 29, 41)):
        images = torch.randn(shape)
        with torch.no_grad():
            expected = module(images)
        for got, want in zip(session.run(None, {'images': images.numpy()}), expected, strict=True):
            np.testing.assert_allclose(got, want, atol=2e-5 * want.abs().mean().item(), rtol=1e-4)


def test_scans_that_a_node_cannot_hold() -> None:
    with pytest.raises(UsageError, match='the same number of routes must start in each phase'):
        to_onnx(Scans([Route(0, 0, False, False, 0, 0), Route(0, 1, False, False, 1, 1)]), ['y'] * 5)


def test_what_cannot_be_exported_is_one_sentence() -> None:
    class Counting(nn.Module):
        def forward(self, images: Tensor) -> tuple[Tensor]:
            return (images * int(images.sum().item()),) if images.sum() > 0 else (images,)

    with pytest.raises(UsageError) as error:
        to_onnx(Counting(), ['y'])
    assert str(error.value).startswith('This model cannot be exported: ')
    assert '\n' not in str(error.value)
