"""Exported backbones: one graph for all sizes and numbers of images, with the scan as a node."""

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
    'VMamba, later design': lambda: VMamba(dict(SMALL, design='v2', ssm_ratio=1.0), out_indices=(1,)),
    'Vim': lambda: Vim({'dims': [16], 'depths': [1]}, img_size=64, out_type='featmap'),
}


@pytest.mark.parametrize('name', BACKBONES)
def test_maps_of_any_size(name: str, tmp_path: Path) -> None:
    backbone = BACKBONES[name]().eval()
    with torch.no_grad():
        for parameter in backbone.parameters():  # position embeddings and biases that matter
            parameter += torch.randn_like(parameter) * 0.1
    outputs = [f'map{i}' for i in backbone.out_indices]
    model = to_onnx(backbone, outputs)
    assert fixed_axes(model) == {}
    nodes = [node for node in model.graph if node.domain == 'mmevm']
    assert {node.op_type for node in nodes} == {'VisualScan'} and len(nodes) <= 2

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


def test_what_cannot_be_exported_is_one_sentence() -> None:
    class Counting(nn.Module):
        def forward(self, images: Tensor) -> tuple[Tensor]:
            return (images * int(images.sum().item()),) if images.sum() > 0 else (images,)

    with pytest.raises(UsageError) as error:
        to_onnx(Counting(), ['y'])
    assert str(error.value).startswith('This model cannot be exported: ')
    assert '\n' not in str(error.value)
