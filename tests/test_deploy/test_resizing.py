"""Bilinear resizing in exported files: one node, equal to PyTorch's at every size."""

from typing import Any

import onnx_ir
import onnxruntime
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmevm.deploy.graph import to_onnx, to_program

LINEAR: list[dict[str, Any]] = [
    {'size': size, 'mode': 'bilinear', 'align_corners': align_corners}
    for size in ('of the image', (40, 33), 7, 1)
    for align_corners in (False, True)
]
OTHERS: list[dict[str, Any]] = [
    {'scale_factor': 2.5, 'mode': 'bilinear'},
    {'size': 'of the image', 'mode': 'nearest'},
    {'size': (40, 33), 'mode': 'bicubic'},
]


class Resized(nn.Module):
    """Every fourth pixel of an image, resized in several ways."""

    def __init__(self, ways: list[dict[str, Any]]) -> None:
        super().__init__()
        self.ways = ways

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        size = {'size': images.shape[2:]}
        every = images[:, :, ::4, ::4]
        return tuple(
            F.interpolate(every, **(way | size if way.get('size') == 'of the image' else way)) for way in self.ways
        )


def test_resizing_is_that_of_pytorch_and_bilinear_to_a_size_one_node() -> None:
    module = Resized(LINEAR + OTHERS)
    model = to_onnx(module, [f'way{i}' for i in range(len(module.ways))])
    linear = [node for node in model.graph if node.op_type == 'Resize' and node.attributes['mode'].value == 'linear']
    assert len([node for node in linear if len(node.inputs) == 4 and node.inputs[3] is not None]) == len(LINEAR)
    session = onnxruntime.InferenceSession(onnx_ir.to_proto(model).SerializeToString())
    for shape in (1, 3, 32, 48), (2, 3, 45, 31), (1, 3, 4, 4):
        images = torch.randn(shape)
        found = session.run(None, {'images': images.numpy()})
        for way, y, expected in zip(module.ways, found, module(images), strict=True):
            difference = (torch.from_numpy(y) - expected).abs().max().item()
            assert y.shape == expected.shape and difference < 1e-4, way


def test_programs_have_pytorchs_own_operators() -> None:
    program = to_program(Resized(LINEAR[:1]))
    assert 'mmevm_deploy' not in str(program.graph)
